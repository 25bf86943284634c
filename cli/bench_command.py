"""``graphkiln bench``: how long a run takes, alone or beside onnxruntime, and where it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .feeds import feeds_for
from .inspect_command import is_artifact
from .options import parse_shapes
from .tables import milliseconds, show, table

if TYPE_CHECKING:
    from ..runtime import Session
    from ..runtime.profile import Profiler

Run = Callable[[], Any]


@click.command("bench")
@click.argument("model", type=click.Path())
@click.option("--onnx", "other", type=click.Path(), help="Interleave onnxruntime on this model.")
@click.option("--profile", is_flag=True, help="Show time, speed and limits of each kernel.")
@click.option(
    "--trace", type=click.Path(dir_okay=False), metavar="FILE.json",
    help="Write a run's kernel calls for ui.perfetto.dev.",
)  # fmt: skip
@click.option(
    "-i", "--input", "inputs", multiple=True, metavar="NAME=FILE.npy|FILE.npz",
    help="Inputs, as for run; random ones fill the rest.",
)  # fmt: skip
@click.option("--dim", "dims", multiple=True, metavar="NAME=8", help="Sizes for random inputs.")
@click.option("--seed", type=int, default=0, show_default=True, help="For random inputs.")
@click.option(
    "--shape", "shapes", multiple=True, metavar="NAME=1x3x224x224",
    help="Pin the shape of an input of an ONNX model.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(1), help="Threads to run on, here and there.")
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), default=3.0, show_default=True,
    help="How long to measure.",
)  # fmt: skip
def command(
    model: str, other: str | None, profile: bool, trace: str | None, inputs: tuple[str, ...],
    dims: tuple[str, ...], seed: int, shapes: tuple[str, ...], threads: int | None, seconds: float,
) -> None:  # fmt: skip
    """Time MODEL, an artifact or an ONNX model that is compiled first.

    Prints median, fastest and 90th percentile of its runs.
    """
    if trace is not None and not Path(trace).parent.is_dir():
        raise click.ClickException(f"cannot write {trace}: there is no folder {Path(trace).parent}")
    with _session(model, shapes, threads) as session:
        feeds = feeds_for(session, inputs, dims, seed)
        runs: dict[str, Run] = {"graphkiln": lambda: session.run(None, feeds)}
        if other is not None:
            rival = _onnxruntime(other, session.threads)
            runs["onnxruntime"] = lambda: rival.run(None, feeds)
        if not profile and trace is None:
            _show(interleave(runs, seconds))
            return
        for run in runs.values():
            run()  # whose errors are told better than those of a profiled run
        profiler = session.profiler(feeds)
        times = interleave({**runs, "profiled": profiler.run}, seconds)
        _show({name: times[name] for name in runs})
        _show_profile(session, profiler, times["graphkiln"], profile, trace, Path(model).name)


def _session(model: str, shapes: Sequence[str], threads: int | None) -> Session:
    """The artifact, loaded, or an ONNX model, compiled and loaded."""
    if is_artifact(model):
        if shapes:
            raise click.UsageError("--shape is for models: an artifact's shapes are settled")
        from ..runtime import load

        return load(model, threads=threads)
    from ..driver import CompileOptions
    from ..driver import compile as compile_model
    from .progress import Progress

    options = CompileOptions(shapes=parse_shapes(shapes) or None)
    with Progress() as progress:
        artifact = compile_model(model, options=options, listener=progress)
    return artifact.session(threads=threads)


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

    rows = []
    for name, measured in times.items():
        low, middle, high = np.percentile(measured, [0, 50, 90])
        rows.append((name, *map(milliseconds, (middle, low, high)), len(measured)))
    show(table("Latency", ["", ">median", ">fastest", ">90 % under", ">runs"], rows))
    if len(times) == 2:
        mine, other = (float(np.median(t)) for t in times.values())
        click.echo(f"graphkiln takes {mine / other:.2f} times as long as onnxruntime")


def _show_profile(
    session: Session, profiler: Profiler, times: Iterable[float], tabulate: bool,
    trace: str | None, title: str,
) -> None:  # fmt: skip
    from . import profile

    report = session.report
    costs = profile.call_costs(profiler.calls, report)
    if tabulate:
        machine = profile.Machine(session.threads, profile.working_set(costs, report))
        seconds = profiler.seconds()
        rows = profile.kernel_rows(profiler.calls, seconds, costs, machine)
        # Of the fastest runs, since what disturbs a run falls on all that it does alike.
        overhead = max(min(times) - float(seconds.sum(axis=1).min()), 0.0)
        show(profile.profile_table(rows, machine, overhead))
        if (origins := profile.origins_table(rows)) is not None:
            show(origins)
        show(profile.profile_facts(profiler, machine, rows))
        if "kernel_costs" not in report:
            click.echo("note: an older graphkiln made this artifact: compile it again for speeds")
    if trace is not None:
        profile.write_trace(trace, profile.trace(profiler, costs, title))
        click.echo(f"{trace}: {len(profiler.calls)} kernel calls of the fastest run")
