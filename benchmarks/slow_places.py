"""Operators that were slow, side by side with onnxruntime.

    python benchmarks/slow_places.py [--target cpu:x86-64-v3] [--only DFT] [--turns 40]

Each row is a model of one node, made here. Both sides run in turn, on one thread, and the least
time of many turns counts, as other work on the machine can only add to it. The factor is
onnxruntime's time over graphkiln's: above 1 graphkiln is faster. The largest difference between
both results is relative to the largest magnitude.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import onnx
from onnx import helper, numpy_helper

Array = np.ndarray

_TURN = 0.003
"""Seconds that a turn of one side takes at least: it repeats short runs."""
_LONGEST, _FEWEST = 2.0, 5
"""Seconds after which a row has had turns enough, if it had that many of them."""


@dataclass(frozen=True)
class Case:
    """A model of one node: its inputs by name, those in ``constants`` as initializers."""

    name: str
    op: str
    feeds: dict[str, Array]
    constants: dict[str, Array] = field(default_factory=dict)
    attrs: dict[str, Any] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    domain: str = ""

    def model(self) -> onnx.ModelProto:
        names = self.order or (*self.feeds, *self.constants)
        node = helper.make_node(self.op, names, ["y"], domain=self.domain, **self.attrs)
        inputs = [
            helper.make_tensor_value_info(k, helper.np_dtype_to_tensor_dtype(a.dtype), a.shape)
            for k, a in self.feeds.items()
        ]
        weights = [numpy_helper.from_array(a, k) for k, a in self.constants.items()]
        output = onnx.ValueInfoProto(name="y")
        graph = helper.make_graph([node], "slow_place", inputs, [output], weights)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=9)


def transforms(random: np.random.Generator) -> Iterator[Case]:
    """``DFT`` of one row and of many, and ``STFT``, of lengths with and without large primes."""
    for n, rows, parts in [
        (96, 1, 1), (97, 1, 1), (127, 1, 1), (211, 1, 1), (251, 16, 1), (257, 1, 1), (509, 1, 1),
        (521, 1, 1), (1009, 1, 1), (1024, 1, 1), (2018, 1, 1), (4093, 1, 1), (10007, 1, 1),
        (1009, 1, 2), (1009, 16, 1),
    ]:  # fmt: skip
        x = random.standard_normal((rows, n, parts), np.float32)
        kind = "complex" if parts == 2 else "real"
        axis = {"axis": np.array(1)}
        yield Case(f"DFT of {rows}x{n}, {kind}", "DFT", {"x": x}, axis, {}, ("x", "", "axis"))
    x = random.standard_normal((1, 1009, 1), np.float32)
    order = ("x", "", "axis")
    attrs = {"onesided": 1}
    yield Case("DFT of 1x1009, onesided", "DFT", {"x": x}, {"axis": np.array(1)}, attrs, order)
    x = random.standard_normal((1, 1009, 2), np.float32)
    attrs = {"inverse": 1}
    yield Case("DFT of 1x1009, inverse", "DFT", {"x": x}, {"axis": np.array(1)}, attrs, order)
    x = random.standard_normal((1, 1009, 1))
    yield Case("DFT of 1x1009, float64", "DFT", {"x": x}, {"axis": np.array(1)}, {}, order)
    for n in (400, 401, 509):
        x = random.standard_normal((1, 16000, 1), np.float32)
        constants = {"step": np.array(160), "window": np.hanning(n).astype(np.float32)}
        order = ("x", "step", "window")
        yield Case(f"STFT of 16,000, frames of {n}", "STFT", {"x": x}, constants, {}, order)


def divisions(random: np.random.Generator) -> Iterator[Case]:
    """``Div`` and ``Mod`` of integers by a tensor and by a scalar."""
    for dtype in ("int64", "int32"):
        for op in ("Div", "Mod"):
            for size in (1_000, 100_000, 1_000_000):
                top = 1 << (40 if dtype == "int64" else 30)
                x = random.integers(-top, top, size).astype(dtype)
                y = random.integers(1, 10_000, size).astype(dtype)
                yield Case(f"{op} of {size:,} {dtype} by as many", op, {"a": x, "b": y})
                yield Case(f"{op} of {size:,} {dtype} by one", op, {"a": x, "b": y[:1]})


def pools(random: np.random.Generator) -> Iterator[Case]:
    """``MaxPool`` of large windows."""
    for shape, window, stride in [((3, 224, 224), 13, 1), ((64, 20, 20), 13, 1),
                                  ((16, 100, 100), 12, 2)]:  # fmt: skip
        x = random.standard_normal((1, *shape), np.float32)
        attrs = {"kernel_shape": [window] * 2, "strides": [stride] * 2, "auto_pad": "SAME_UPPER"}
        name = f"MaxPool {window}x{window}, stride {stride}, of {'x'.join(map(str, shape))}"
        yield Case(name, "MaxPool", {"x": x}, {}, attrs)


def suppressions(random: np.random.Generator) -> Iterator[Case]:
    """``NonMaxSuppression``: ``most`` boxes are kept of each class."""
    for classes, count, most in [(80, 8400, 100), (80, 8400, 8400), (1, 1000, 1000),
                                 (20, 500, 10)]:  # fmt: skip
        corner = random.uniform(0, 600, (1, count, 2))
        size = random.uniform(5, 100, (1, count, 2))
        boxes = np.concatenate([corner, corner + size], axis=-1).astype(np.float32)
        # Detectors give most boxes low scores: an eighth of these are above the least one.
        scores = (random.uniform(0, 1, (1, classes, count)) ** 10).astype(np.float32)
        constants = {
            "most": np.array([most]), "overlap": np.array([0.5], np.float32),
            "least": np.array([0.25], np.float32),
        }  # fmt: skip
        name = f"NonMaxSuppression, {classes} classes of {count:,} boxes, {most:,} of each"
        yield Case(name, "NonMaxSuppression", {"boxes": boxes, "scores": scores}, constants)


def block_quantized(random: np.random.Generator) -> Iterator[Case]:
    """``MatMulNBits`` of weights of 4 bits in blocks of 32."""
    for m, k, n, level in [(1, 2048, 2048, 0), (1, 2048, 2048, 4), (16, 1024, 1024, 4),
                           (64, 1024, 1024, 0), (64, 1024, 1024, 4)]:  # fmt: skip
        x = random.standard_normal((m, k), np.float32)
        weights = random.integers(0, 256, (n, k // 32, 16)).astype(np.uint8)
        scales = random.uniform(0.001, 0.02, n * k // 32).astype(np.float32)
        attrs = {"K": k, "N": n, "bits": 4, "block_size": 32, "accuracy_level": level}
        name = f"MatMulNBits, {m}x{k} by {k}x{n}, accuracy_level {level}"
        constants = {"weights": weights, "scales": scales}
        yield Case(name, "MatMulNBits", {"x": x}, constants, attrs, domain="com.microsoft")


GROUPS = (transforms, divisions, pools, suppressions, block_quantized)


def cases() -> Iterator[Case]:
    """Every row of the table, with the same values on every run."""
    for group in GROUPS:
        yield from group(np.random.default_rng(0))


def peer(model: onnx.ModelProto) -> Callable[[dict[str, Array]], list[Array]]:
    """onnxruntime on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return lambda feeds: session.run(None, feeds)


def compiled(model: onnx.ModelProto, target: str) -> Callable[[dict[str, Array]], list[Array]]:
    """graphkiln on one thread."""
    import graphkiln
    from graphkiln.runtime import load

    with tempfile.TemporaryDirectory() as folder:
        source, artifact = Path(folder) / "m.onnx", Path(folder) / "m.kiln"
        onnx.save(model, source)
        graphkiln.compile(str(source), target).save(artifact)
        session = load(artifact, threads=1)
    return lambda feeds: session.run(None, feeds)


def least_times(runs: list[Callable[[], Any]], turns: int) -> list[float]:
    """The least seconds of a run of each, over turns that alternate."""
    repeats = [max(1, round(_TURN / max(_seconds(run, 1), 1e-6))) for run in runs]
    best = [float("inf")] * len(runs)
    end = time.perf_counter() + _LONGEST
    for turn in range(turns):
        for i, run in enumerate(runs):
            best[i] = min(best[i], _seconds(run, repeats[i]))
        if turn >= _FEWEST and time.perf_counter() > end:
            break
    return best


def _seconds(run: Callable[[], Any], count: int) -> float:
    start = time.perf_counter()
    for _ in range(count):
        run()
    return (time.perf_counter() - start) / count


def difference(got: list[Array], want: list[Array]) -> float:
    """The largest difference, relative to the largest magnitude; infinite for other shapes."""
    if [a.shape for a in got] != [a.shape for a in want]:
        return float("inf")
    pairs = [(g.astype(float), w.astype(float)) for g, w in zip(got, want, strict=True) if w.size]
    return max((np.abs(g - w).max() / max(np.abs(w).max(), 1e-30) for g, w in pairs), default=0.0)


@click.command()
@click.option("--target", default="cpu", show_default=True, help="What graphkiln compiles for.")
@click.option("--only", default="", help="Rows whose name contains this.")
@click.option("--turns", default=40, show_default=True, help="Turns of each side.")
def main(target: str, only: str, turns: int) -> None:
    """Print a table of milliseconds and factors."""
    click.echo(
        f"{'what':66s} {'onnxruntime':>11s} {'graphkiln':>10s} {'factor':>7s} {'differ':>8s}"
    )
    for case in cases():
        if only not in case.name:
            continue
        model = case.model()
        sides = [peer(model), compiled(model, target)]
        want, got = (side(case.feeds) for side in sides)
        ours = [lambda side=side, case=case: side(case.feeds) for side in sides]
        theirs, own = least_times(ours, turns)
        click.echo(
            f"{case.name:66s} {theirs * 1e3:11.4f} {own * 1e3:10.4f} {theirs / own:7.2f} "
            f"{difference(got, want):8.1e}"
        )


if __name__ == "__main__":
    main()
