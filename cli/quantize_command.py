"""``graphkiln quantize``: a float model and samples in, an artifact or a quantized model out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import compile_options, make_options, require_writable
from .progress import Progress
from .tables import facts, milliseconds, show, size, table

if TYPE_CHECKING:
    from ..passes.base import Row
    from ..passes.ranges import Range
    from ..quantizer import Quantized
    from ..quantizer.result import Form

_SHADES = " ▁▂▃▄▅▆▇█"


@click.command("quantize")
@click.argument("model", type=click.Path())
@click.option(
    "--data", metavar="FILE.npz|FOLDER|MODULE:FUNCTION",
    help="Samples: arrays whose first axis runs over them, a file for each, or a function that "
    "yields dicts of arrays.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=click.Path(),
    help="An artifact, or an ONNX model where it ends in .onnx (default: MODEL.kiln).",
)  # fmt: skip
@click.option(
    "--format", "form", type=click.Choice(["qdq", "qoperator"]), default="qdq", show_default=True,
    help="The form of an ONNX model: quantizers around float ops, or ops on integers.",
)  # fmt: skip
@click.option(
    "--scheme", default="int8", show_default=True,
    help="int8: weights and activations, with ranges from samples; int16: with activations of 16 "
    "bits; int8-dynamic: with ranges found in each run; int8-weights, int4-weights: weights only; "
    "float16-weights, bfloat16-weights: weights in 16 bits.",
)  # fmt: skip
@click.option(
    "--method", type=click.Choice(["minmax", "average", "percentile", "mse", "entropy"]),
    help="How ranges are picked from what runs show (default: minmax).",
)  # fmt: skip
@click.option(
    "--share", type=float,
    help="The share of the numbers within the range, for percentile (default: 0.9999).",
)  # fmt: skip
@click.option("--block", type=int, help="Weights of few bits that share a scale (default: 32).")
@click.option(
    "--rounding", type=click.Choice(["nearest", "mse", "gptq"]),
    help="How weights are rounded (default: nearest for int8, mse for weights only); gptq takes "
    "samples.",
)  # fmt: skip
@click.option("--only", multiple=True, metavar="PATTERN", help="Quantize these layers or ops only.")
@click.option("--exclude", multiple=True, metavar="PATTERN", help="Leave these layers or ops.")
@click.option(
    "--precision", type=click.Path(), metavar="FILE.toml",
    help="Other schemes, or none, for layers that match patterns.",
)  # fmt: skip
@click.option(
    "--exclude-worst", type=click.IntRange(0), default=0, metavar="N",
    help="Leave the N layers that suffer most by themselves.",
)  # fmt: skip
@click.option(
    "--fallback", metavar="SCHEME", default="float", show_default=True,
    help="The scheme of layers that --exclude-worst and --max-drop leave.",
)  # fmt: skip
@click.option(
    "--equalize", is_flag=True,
    help="Scale the weights of neighbouring layers so that channels have alike ranges.",
)  # fmt: skip
@click.option(
    "--smooth", is_flag=True,
    help="Move large channels of activations into weights, as far as it helps each tensor.",
)  # fmt: skip
@click.option(
    "--bias-correction", is_flag=True,
    help="Let biases make up for what quantization adds to the means of channels.",
)  # fmt: skip
@click.option(
    "--all-layers", is_flag=True,
    help="Quantize layers that become slower by it, too: they get smaller.",
)  # fmt: skip
@click.option(
    "--pairs", type=click.Choice(["safe", "split"]),
    help="Where dot products sum pairs that could saturate: weights that never do, or the nearest "
    "ones, with such pairs split in two when the model is compiled (default: safe).",
)  # fmt: skip
@click.option(
    "--max-drop", metavar="DROP",
    help="Leave as many layers as keep the metric's drop within this, such as 0.5% or 0.005.",
)  # fmt: skip
@click.option(
    "--time-budget", type=click.FloatRange(0), metavar="SECONDS",
    help="End the search for --max-drop after so long, with the best that it has found.",
)  # fmt: skip
@click.option(
    "--metric", metavar="MODULE:FUNCTION",
    help="A function of the results and the sample, by name, that gives a score (default: "
    "agreement with the float model).",
)  # fmt: skip
@click.option(
    "--ranges",
    "given",
    multiple=True,
    type=click.Path(),
    metavar="FILE.json",
    help="Ranges to go by in place of what runs show; of several files, what holds all.",
)
@click.option(
    "--data-free", is_flag=True,
    help="Find ranges on inputs that are made up, where there are no samples.",
)  # fmt: skip
@click.option(
    "--journal", type=click.Path(), metavar="FILE.json",
    help="Keep what is found here, and go on from there if the command was stopped.",
)  # fmt: skip
@click.option("--save-ranges", type=click.Path(), metavar="FILE.json", help="Write the ranges.")
@click.option(
    "--report", type=click.Path(), metavar="FILE.json|FILE.html",
    help="Write the report, as a page with plots where it ends in .html.",
)  # fmt: skip
@click.option("--quiet", is_flag=True, help="Print nothing but errors.")
@compile_options
def command(
    model: str, data: str | None, output: str | None, form: Form, exclude_worst: int,
    max_drop: str | None, metric: str | None, given: tuple[str, ...], data_free: bool,
    journal: str | None, save_ranges: str | None, report: str | None, quiet: bool, scheme: str,
    only: tuple[str, ...], exclude: tuple[str, ...], precision: str | None, fallback: str,
    equalize: bool,
    smooth: bool, time_budget: float | None, **values: Any,
) -> None:  # fmt: skip
    """Quantize MODEL: to 8-bit integers, with ranges from samples of its inputs, or its weights."""
    from ..quantizer import quantize
    from ..quantizer.page import require_libraries
    from ..quantizer.schemes import option_names
    from ..samples import function_of

    path = Path(output) if output else Path(model).with_suffix(".kiln")
    require_writable(path, model)
    if form != "qdq" and path.suffix != ".onnx":
        raise click.ClickException(f"--format {form} is for ONNX models: name one with -o")
    for other in (save_ranges, report, journal):
        if other is not None and not Path(other).parent.is_dir():
            raise click.ClickException(f"cannot write {other}: there is no such folder")
    if report is not None and Path(report).suffix == ".html":
        require_libraries()
    # An option that is not given is left to the scheme, which may not have it.
    asked = {name: values.pop(name) for name in option_names() & values.keys()}
    asked = {name: value for name, value in asked.items() if value not in (None, False)}
    options = make_options(values)
    started = time.perf_counter()
    with Progress(quiet) as progress:
        found = quantize(
            model, data or (), scheme=scheme, only=only, exclude=exclude,
            precision=precision or (), exclude_worst=exclude_worst, ranges=_read_ranges(given),
            data_free=data_free, fallback=fallback, equalize=equalize, smooth=smooth,
            metric=None if metric is None else function_of(metric),
            max_drop=None if max_drop is None else parse_drop(max_drop),
            time_budget=time_budget, journal=journal, options=options, listener=progress, **asked,
        )  # fmt: skip
        if save_ranges is not None:
            found.save_ranges(save_ranges)
        found.save(path, progress, form)
        if report is not None:
            found.save_report(report)
    if not quiet:
        _summary(found, path, time.perf_counter() - started)


def parse_drop(text: str) -> float:
    """``0.5%`` or ``0.005``; raises a usage error."""
    number, percent = text.removesuffix("%"), text.endswith("%")
    try:
        drop = float(number) / (100 if percent else 1)
    except ValueError:
        drop = -1.0
    if not 0 <= drop < float("inf"):
        raise click.BadParameter(f"{text!r} is not a drop such as 0.5%", param_hint="--max-drop")
    return drop


def _read_ranges(paths: Sequence[str]) -> dict[str, Range]:
    from ..passes.ranges import merge_ranges, read_ranges

    found: dict[str, Range] = {}
    for path in paths:
        found = merge_ranges(found, read_ranges(Path(path)))
    return found


def _summary(found: Quantized, path: Path, seconds: float) -> None:
    rows = [
        (row["layer"], row["op"], row["scheme"], _decibels(row["decibels"]),
         _decibels(row["alone"]), _ratio(row["gain"]), row["reason"])
        for row in found.layers
    ]  # fmt: skip
    columns = ["layer", "op", "scheme", ">weights, dB", ">alone, dB", ">gain", "why"]
    show(table("Layers", columns, rows))
    cells = [
        (row["tensor"], f"{row['low']:.4g}", f"{row['high']:.4g}", *_seen(row),
         _decibels(row["decibels"]), shades(row["histogram"] or ()))
        for row in found.tensors
    ]  # fmt: skip
    titles = ["tensor", ">low", ">high", ">seen low", ">high", ">dB", "seen"]
    if cells:
        show(table("Tensors", titles, cells))
    if "smoothed" in found.tables:
        _show_smoothed(found.tables["smoothed"])
    integers = sum(row["scheme"] != "float" for row in found.layers)
    told = {"layers": f"{integers} of {len(found.layers)} quantized"}
    if found.score is not None:
        told["score"] = f"{found.score:.6g}, in floats {found.float_score:.6g}"
    told["time"] = milliseconds(seconds)
    told["written"] = f"{path}, {size(path.stat().st_size)}"
    show(facts("Summary", told))
    for warning in found.warnings:
        click.echo(f"note: {warning}")


def _show_smoothed(rows: Sequence[Row]) -> None:
    cells = [
        (row["tensor"], "" if row["strength"] is None else f"{row['strength']:.2f}",
         _decibels(row["before"]), _decibels(row["after"]), row["reason"])
        for row in rows
    ]  # fmt: skip
    show(table("Smoothed", ["tensor", ">strength", ">before, dB", ">after, dB", "why"], cells))


def _seen(row: Row) -> tuple[str, str]:
    if row["seen"] is None:
        return row["by"], ""
    low, high = row["seen"]
    return f"{low:.4g}", f"{high:.4g}"


def _decibels(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _ratio(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def shades(counts: Sequence[int]) -> str:
    """A histogram as one line of bars; what is there at all can be seen."""
    most = max(counts, default=0) or 1
    steps = len(_SHADES) - 1
    return "".join(_SHADES[-(-count * steps // most)] for count in counts)
