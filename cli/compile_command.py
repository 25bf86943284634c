"""``graphkiln compile``: model in, artifact out, with progress and a summary."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import click

from .options import compile_options, make_options
from .progress import Progress
from .tables import facts, milliseconds, number, show, size, table


@click.command("compile")
@click.argument("model", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="The artifact (default: MODEL.kiln).")
@click.option("--folder", is_flag=True, help="Write a folder instead of one file.")
@click.option(
    "--tune",
    type=click.FloatRange(0, 1e6),
    default=0.0,
    metavar="SECONDS",
    help="Time the best few ways to compute each heavy kernel for so long, and remember them.",
)
@click.option("--tuned", is_flag=True, help="Use what --tune remembers, but time nothing.")
@click.option(
    "--explain",
    metavar="PATTERN",
    help="Say why rewrites were not made, of rules or nodes whose names match: 'layout', '*/a/*'.",
)
@click.option(
    "--data", metavar="FILE.npz|FOLDER|MODULE:FUNCTION",
    help="Samples of the inputs, for passes such as 'quantize'; see 'graphkiln quantize'.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@compile_options
def command(
    model: str, output: str | None, folder: bool, data: str | None, quiet: bool, **values: Any
) -> None:
    """Compile MODEL ahead of time."""
    from ..codegen.artifact import require_writable
    from ..driver import compile as compile_model

    options = make_options(values)
    path = Path(output) if output else Path(model).with_suffix(".kiln")
    if not path.parent.is_dir():
        raise click.ClickException(f"cannot write {path}: there is no folder {path.parent}")
    if os.path.exists(path) and os.path.exists(model) and os.path.samefile(path, model):
        raise click.ClickException(f"cannot write {path}: it is the model")
    require_writable(path, folder)
    started = time.perf_counter()
    with Progress(quiet) as progress:
        artifact = compile_model(model, options=options, listener=progress, data=data or ())
        progress("write", 0, 1)
        artifact.save(path, folder=folder)
    if not quiet:
        _summary(artifact, path, time.perf_counter() - started)


def _summary(artifact: Any, path: Path, seconds: float) -> None:
    records = artifact.pass_records
    spent = sum(r.seconds for r in records) or 1.0
    rows = [
        (r.text, r.nodes_before, r.nodes_after, r.changes, milliseconds(r.seconds),
         f"{r.seconds / spent:.0%}")
        for r in records
    ]  # fmt: skip
    columns = ["pass", ">nodes before", ">after", ">changes", ">time", ">share"]
    show(table("Passes", columns, rows))
    total = sum(f.stat().st_size for f in path.iterdir()) if path.is_dir() else path.stat().st_size
    report = artifact.report
    stages = ", ".join(f"{name} {milliseconds(s)}" for name, s in artifact.seconds.items())
    show(
        facts(
            "Summary",
            {
                "nodes": f"{report['nodes']['imported']} before, "
                f"{report['nodes']['optimised']} after",
                "kernels": report["kernels"],
                "runs": report["runs"],
                "operations per run": operations(report["flops"]),
                "weights": size(report["weight_bytes"]),
                "peak activation memory": size(report["arena_bytes"]),
                "host functions": ", ".join(report["host_functions"]) or "none",
                "time": f"{milliseconds(seconds)} ({stages})",
                "artifact": f"{path}, {size(total)}",
            },
        )
    )
    if artifact.near_misses:
        misses = [
            (m.rule, m.node, m.op, ", ".join(m.origins), m.reason) for m in artifact.near_misses
        ]
        show(table("Not done", ["rule", "node", "op", "ONNX nodes", "why"], misses))
    if artifact.tuning is not None:
        show(facts("Tuning", tuning_facts(artifact.tuning)))
    for warning in report["warnings"]:
        click.echo(f"note: {warning}")


def tuning_facts(report: Any) -> dict[str, Any]:
    """What tuning did, as far as it did anything."""
    told = {
        "kernels timed": report.timed,
        "changed by that": report.changed,
        "known before": report.known,
        "not timed, as the time was up": report.late,
        "not timed, as their size is open": report.open,
        "candidates that failed": report.failed,
    }
    return {what: count for what, count in told.items() if count or what == "kernels timed"}


def operations(count: int) -> str:
    """A report's number of operations; 0 stands for one that open dimensions decide."""
    return number(count) if count else "depends on open dimensions"
