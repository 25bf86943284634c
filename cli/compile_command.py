"""``graphkiln compile``: model in, artifact out, with progress and a summary."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from .options import compile_options, make_options


@click.command("compile")
@click.argument("model", type=click.Path())
@click.option("-o", "--output", type=click.Path(), help="The artifact (default: MODEL.kiln).")
@click.option("--folder", is_flag=True, help="Write a folder instead of one file.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@compile_options
def command(model: str, output: str | None, folder: bool, quiet: bool, **values: Any) -> None:
    """Compile MODEL ahead of time."""
    from ..driver import compile as compile_model

    options = make_options(values)
    path = Path(output) if output else Path(model).with_suffix(".kiln")
    started = time.perf_counter()
    with _Progress(quiet) as progress:
        artifact = compile_model(model, options=options, listener=progress)
        progress("write", 0, 1)
        artifact.save(path, folder=folder)
    if not quiet:
        _summary(artifact, path, time.perf_counter() - started)


class _Progress:
    """A progress bar on standard error; silent where that is no terminal or with ``quiet``."""

    def __init__(self, quiet: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
            console=console, transient=True, disable=quiet or not console.is_terminal,
        )  # fmt: skip
        self._task = self._bar.add_task("import", total=1)

    def __enter__(self) -> _Progress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        self._bar.update(self._task, description=stage, completed=done, total=max(total, 1))


def _summary(artifact: Any, path: Path, seconds: float) -> None:
    from .tables import milliseconds, number, show, size, table

    report = artifact.report
    rows = [
        (r.text, r.nodes_before, r.nodes_after, r.changes, milliseconds(r.seconds))
        for r in artifact.pass_records
    ]
    show(table("Passes", ["pass", ">nodes before", ">after", ">changes", ">time"], rows))
    total = sum(f.stat().st_size for f in path.iterdir()) if path.is_dir() else path.stat().st_size
    facts = [
        ("nodes", f"{report['nodes']['imported']} -> {report['nodes']['optimised']}"),
        ("kernels", report["kernels"]),
        ("operations per run", number(report["flops"]) if report["flops"] else "depends on shapes"),
        ("weights", size(report["weight_bytes"])),
        ("activation memory (planned peak)", size(report["arena_bytes"])),
        ("host functions", ", ".join(report["host_functions"]) or "none"),
        ("artifact", f"{path} ({size(total)})"),
        *((f"time: {stage}", milliseconds(s)) for stage, s in artifact.seconds.items()),
        ("time", milliseconds(seconds)),
    ]
    show(table("Summary", ["", ""], facts))
    for warning in report["warnings"]:
        click.echo(f"warning: {warning}", err=True)
