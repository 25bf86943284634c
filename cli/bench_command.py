"""``graphkiln bench``: how long a run takes, alone or beside onnxruntime."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from .feeds import feeds_for

Run = Callable[[], Any]


@click.command("bench")
@click.argument("artifact", type=click.Path())
@click.option("--onnx", "model", type=click.Path(), help="Interleave onnxruntime on this model.")
@click.option(
    "-i", "--input", "inputs", multiple=True, metavar="NAME=FILE.npy|FILE.npz",
    help="Inputs, as for run; random ones fill the rest.",
)  # fmt: skip
@click.option("--dim", "dims", multiple=True, metavar="NAME=8", help="Sizes for random inputs.")
@click.option("--seed", type=int, default=0, show_default=True, help="For random inputs.")
@click.option("--threads", type=click.IntRange(1), help="Threads to run on, here and there.")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True,
    help="How long to measure.",
)  # fmt: skip
def command(
    artifact: str, model: str | None, inputs: tuple[str, ...], dims: tuple[str, ...], seed: int,
    threads: int | None, seconds: float,
) -> None:  # fmt: skip
    """Time ARTIFACT: median, fastest and 90th percentile of its runs."""
    from ..runtime import load
    from ..runtime.machine import usable_cores

    with load(artifact, threads=threads) as session:
        feeds = feeds_for(session, inputs, dims, seed)
        runs: dict[str, Run] = {"graphkiln": lambda: session.run(None, feeds)}
        if model is not None:
            other = _onnxruntime(model, threads or usable_cores())
            runs["onnxruntime"] = lambda: other.run(None, feeds)
        _show(interleave(runs, seconds))


def _onnxruntime(model: str, threads: int) -> Any:
    try:
        import onnxruntime
    except ImportError:
        reason = "onnxruntime is not installed: pip install 'graphkiln[bench]'"
        raise click.ClickException(reason) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as e:
        raise click.ClickException(f"{model}: onnxruntime cannot load it ({e})") from e


def interleave(runs: Mapping[str, Run], seconds: float) -> dict[str, list[float]]:
    """Seconds of every run, taken in turns, so that the machine's moods meet all alike."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for run in runs.values():
        run()
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or not all(times.values()):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            times[name].append(time.perf_counter() - start)
    return times


def _show(times: Mapping[str, Sequence[float]]) -> None:
    import numpy as np

    from .tables import milliseconds, show, table

    rows = []
    for name, measured in times.items():
        low, middle, high = np.percentile(measured, [0, 50, 90])
        rows.append((name, *map(milliseconds, (middle, low, high)), len(measured)))
    show(table("Latency", ["", ">median", ">fastest", ">90 % under", ">runs"], rows))
    if len(times) == 2:
        mine, other = (float(np.median(t)) for t in times.values())
        click.echo(f"graphkiln takes {mine / other:.2f} times as long as onnxruntime")
