"""``graphkiln prune``: a model in, an artifact or an ONNX model with fewer channels out."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import compile_options, make_options, require_writable
from .progress import Progress
from .quantize_command import parse_drop
from .tables import facts, milliseconds, number, show, size, table

if TYPE_CHECKING:
    from ..pruner import Pruned


@click.command("prune")
@click.argument("model", type=click.Path())
@click.option(
    "-o", "--output", type=click.Path(),
    help="An artifact, or an ONNX model where it ends in .onnx (default: MODEL.kiln).",
)  # fmt: skip
@click.option(
    "--ratio", type=click.FloatRange(0, 1, max_open=True),
    help="The share of channels to remove (default: 0.3).",
)  # fmt: skip
@click.option(
    "--target-flops", type=click.FloatRange(0, 1, max_open=True), metavar="SHARE",
    help="Remove as little as leaves this share of the operations.",
)  # fmt: skip
@click.option(
    "--max-drop", metavar="DROP",
    help="Remove as much as keeps the metric's drop within this, such as 0.5% or 0.005.",
)  # fmt: skip
@click.option(
    "--metric", metavar="MODULE:FUNCTION",
    help="A function of the results and the sample, by name, that gives a score (default: "
    "agreement with the original).",
)  # fmt: skip
@click.option(
    "--criterion", default="l2", show_default=True,
    type=click.Choice(["l1", "l2", "median", "batch-norm", "activation", "random"]),
    help="What makes a channel important.",
)  # fmt: skip
@click.option(
    "--overall", is_flag=True,
    help="Compare channels of all layers, rather than remove the same share of each.",
)  # fmt: skip
@click.option(
    "--layer", "layers", multiple=True, metavar="PATTERN=RATIO",
    help="Another ratio for the channels that matching nodes make; 0 leaves them.",
)  # fmt: skip
@click.option(
    "--multiple", type=click.IntRange(1), metavar="N",
    help="Keep widths multiples of N (default: what the target's kernels take at a time).",
)  # fmt: skip
@click.option(
    "--reconstruct", is_flag=True,
    help="Let the weights that are left make up for the channels that go, on samples.",
)  # fmt: skip
@click.option(
    "--data", metavar="FILE.npz|FOLDER|MODULE:FUNCTION",
    help="Samples, for the criterion activation, --reconstruct and --max-drop.",
)  # fmt: skip
@click.option("--report", type=click.Path(), metavar="FILE.json", help="Write the report.")
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@compile_options
def command(
    model: str, output: str | None, ratio: float | None, target_flops: float | None,
    max_drop: str | None, metric: str | None, criterion: str, overall: bool,
    layers: tuple[str, ...], multiple: int | None, reconstruct: bool, data: str | None,
    report: str | None, quiet: bool, **values: Any,
) -> None:  # fmt: skip
    """Remove the least important channels, units and heads of MODEL."""
    from ..pruner import prune
    from ..samples import function_of

    path = Path(output) if output else Path(model).with_suffix(".kiln")
    require_writable(path, model)
    if report is not None and not Path(report).parent.is_dir():
        raise click.ClickException(f"cannot write {report}: there is no such folder")
    options = make_options(values)
    started = time.perf_counter()
    with Progress(quiet) as progress:
        found = prune(
            model, data or (), ratio=ratio, target_flops=target_flops,
            max_drop=None if max_drop is None else parse_drop(max_drop),
            metric=None if metric is None else function_of(metric), overall=overall,
            layers=dict(map(_layer, layers)), criterion=criterion, multiple=multiple,
            reconstruct=reconstruct, options=options, listener=progress,
        )  # fmt: skip
        found.save(path, progress)
        if report is not None:
            found.save_report(report)
    if not quiet:
        _summary(found, path, time.perf_counter() - started)


def _layer(text: str) -> tuple[str, float]:
    """``PATTERN=RATIO``; raises a usage error."""
    from ..ir.graph import GraphError
    from ..passes.prune.prune import layer_ratio

    try:
        return layer_ratio(text)
    except GraphError as e:
        raise click.BadParameter(e.reason, param_hint="--layer") from e


def _summary(found: Pruned, path: Path, seconds: float) -> None:
    rows = [
        (row["group"], row["op"], row["channels"], row["dropped"], row["reason"])
        for row in found.groups
    ]
    show(table("Groups", ["group", "op", ">channels", ">dropped", "why none"], rows))
    before, after = found.before, found.after
    told = {
        "weights": _of(after.weights, before.weights),
        "operations": _of(after.operations, before.operations),
        "ratio": f"{found.ratio:.4g}",
    }
    if found.score is not None:
        told["score"] = f"{found.score:.6g}, of the original {found.original_score:.6g}"
    told["time"] = milliseconds(seconds)
    told["written"] = f"{path}, {size(path.stat().st_size)}"
    show(facts("Summary", told))
    for warning in found.warnings:
        click.echo(f"note: {warning}")


def _of(after: int, before: int) -> str:
    return f"{number(after)} of {number(before)}, {after / max(before, 1):.1%}"
