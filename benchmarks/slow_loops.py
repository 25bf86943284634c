"""Loops of small steps beside onnxruntime, on one thread.

python benchmarks/slow_loops.py [--rounds 15] [NAME ...]
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

import click
import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
TURN = 0.02  # seconds that one side runs for before the other has its turn

Case: TypeAlias = "tuple[onnx.ModelProto, dict[str, np.ndarray]]"


def value(name: str, shape: Sequence[int | str] | None, kind: int = FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(
    nodes: Sequence[onnx.NodeProto], inputs: Sequence[Any], outputs: Sequence[Any],
    weights: Mapping[str, np.ndarray] | None = None,
) -> onnx.ModelProto:  # fmt: skip
    held = [numpy_helper.from_array(a, n) for n, a in (weights or {}).items()]
    graph = helper.make_graph(nodes, "g", inputs, outputs, held)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)


def adding(
    trips: int, *, conditional: bool = False, scanned: bool = False, known: bool = False,
    shape: Sequence[int | str] = (4,),
) -> Case:  # fmt: skip
    """A Loop whose body adds a constant to what it carries.

    ``conditional``: a condition computed in the body ends it; ``scanned``: each sum is stacked;
    ``known``: the trip count is a constant.
    """
    nodes = [helper.make_node("Add", ["v", "one"], ["w"])]
    if conditional:
        nodes += [helper.make_node("ReduceMax", ["w"], ["top"], keepdims=0),
                  helper.make_node("Less", ["top", "end"], ["on"])]  # fmt: skip
    else:
        nodes.append(helper.make_node("Identity", ["go"], ["on"]))
    results = [value("on", (), BOOL), value("w", shape)]
    if scanned:
        nodes.append(helper.make_node("Identity", ["w"], ["row"]))
        results.append(value("row", shape))
    body = helper.make_graph(
        nodes, "body", [value("i", (), INT64), value("go", (), BOOL), value("v", shape)], results
    )
    outs = ["y", "rows"][: 1 + scanned]
    shapes: list[Sequence[int | str]] = [shape, ("T", *shape)]
    loop = helper.make_node("Loop", ["n", "", "x"], outs, body=body)
    weights = {"one": np.ones(1, np.float32), "end": np.array(trips - 0.5, np.float32)}
    feeds = {"x": np.zeros([d if isinstance(d, int) else 4 for d in shape], np.float32)}
    inputs = [value("x", shape)]
    count = np.array(2 * trips if conditional else trips)
    if known:
        weights["n"] = count
    else:
        inputs.append(value("n", (), INT64))
        feeds["n"] = count
    results = [value(n, s) for n, s in zip(outs, shapes, strict=False)]
    return model([loop], inputs, results, weights), feeds


def recurrent(steps: int, size: int, open_dims: bool = False) -> Case:
    """A Scan over a sequence: h = tanh(x W + h R), of which every h is stacked."""
    batch: int | str = "B" if open_dims else 1
    length: int | str = "T" if open_dims else steps
    body = helper.make_graph(
        [helper.make_node("MatMul", ["xt", "W"], ["a"]),
         helper.make_node("MatMul", ["h", "R"], ["b"]),
         helper.make_node("Add", ["a", "b"], ["c"]), helper.make_node("Tanh", ["c"], ["next"]),
         helper.make_node("Identity", ["next"], ["row"])],
        "body", [value("h", (batch, size)), value("xt", (batch, size))],
        [value("next", (batch, size)), value("row", (batch, size))],
    )  # fmt: skip
    scan = helper.make_node("Scan", ["h0", "x"], ["last", "all"], body=body, num_scan_inputs=1)
    random = np.random.default_rng(0)
    weights = {n: (random.standard_normal((size, size)) / size).astype(np.float32) for n in "WR"}
    inputs = [value("h0", (batch, size)), value("x", (length, batch, size))]
    outputs = [value("last", (batch, size)), value("all", (length, batch, size))]
    feeds = {
        "h0": np.zeros((1, size), np.float32),
        "x": random.standard_normal((steps, 1, size)).astype(np.float32),
    }
    return model([scan], inputs, outputs, weights), feeds


def chosen(trips: int) -> Case:
    """The first loop, in a branch of an If."""
    plain, feeds = adding(trips)
    (loop,) = plain.graph.node
    then = helper.make_graph([loop], "then", [], [value("y", (4,))])
    other = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["z"])], "other", [], [value("z", (4,))]
    )
    choice = helper.make_node("If", ["c"], ["r"], then_branch=then, else_branch=other)
    held = {t.name: numpy_helper.to_array(t) for t in plain.graph.initializer}
    inputs = [*plain.graph.input, value("c", (), BOOL)]
    return model([choice], inputs, [value("r", (4,))], held), {**feeds, "c": np.array(True)}


def nested(outer: int, inner: int) -> Case:
    """A loop in a loop."""
    plain, feeds = adding(inner)
    (loop,) = plain.graph.node
    loop.input[2] = "u"
    body = helper.make_graph(
        [loop, helper.make_node("Identity", ["going"], ["still"])], "outer",
        [value("j", (), INT64), value("going", (), BOOL), value("u", (4,))],
        [value("still", (), BOOL), value("y", (4,))],
    )  # fmt: skip
    around = helper.make_node("Loop", ["m", "", "x"], ["r"], body=body)
    held = {t.name: numpy_helper.to_array(t) for t in plain.graph.initializer}
    inputs = [*plain.graph.input, value("m", (), INT64)]
    return model([around], inputs, [value("r", (4,))], held), {**feeds, "m": np.array(outer)}


def growing(trips: int) -> Case:
    """A loop that carries a list which each iteration makes longer, as decoders do."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]),
         helper.make_node("Reshape", ["i", "row"], ["one"]),
         helper.make_node("Concat", ["v", "one"], ["w"], axis=0)],
        "body", [value("i", (), INT64), value("go", (), BOOL), value("v", ("K",), INT64)],
        [value("on", (), BOOL), value("w", ("L",), INT64)],
    )  # fmt: skip
    loop = helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)
    inputs = [value("x", ("K",), INT64), value("n", (), INT64)]
    proto = model([loop], inputs, [value("y", ("M",), INT64)], {"row": np.array([1])})
    return proto, {"x": np.zeros(1, np.int64), "n": np.array(trips)}


CASES: dict[str, Callable[[], Case]] = {
    "Loop, an Add on 4 elements, 10 times": lambda: adding(10),
    "the same, 1,000 times": lambda: adding(1000),
    "1,000 times, ended by a condition": lambda: adding(1000, conditional=True),
    "1,000 times, each sum stacked": lambda: adding(1000, scanned=True),
    "the same, the trip count a constant": lambda: adding(1000, scanned=True, known=True),
    "1,000 times, stacked and ended by a condition":
        lambda: adding(1000, conditional=True, scanned=True),
    "1,000 times, an open dim": lambda: adding(1000, shape=("N",)),
    "1,000 times, in an If": lambda: chosen(1000),
    "100 times, in a Loop of 100": lambda: nested(100, 100),
    "Loop, a list made longer, 200 times": lambda: growing(200),
    "Scan, 100 steps of two MatMul 1x16 by 16x16 and a Tanh": lambda: recurrent(100, 16),
    "the same, 1x128 by 128x128": lambda: recurrent(100, 128),
    "the same, 1x16 by 16x16, sequence and batch open": lambda: recurrent(100, 16, open_dims=True),
}  # fmt: skip


def best(sides: Sequence[Callable[[], Any]], rounds: int) -> list[float]:
    """The least seconds of a run of each side, in turns."""
    least = [float("inf")] * len(sides)
    for _ in range(rounds):
        for number, run in enumerate(sides):
            end = time.perf_counter() + TURN
            run()
            while True:
                start = time.perf_counter()
                run()
                now = time.perf_counter()
                least[number] = min(least[number], now - start)
                if now > end:
                    break
    return least


def peer(proto: onnx.ModelProto) -> Any:
    """An onnxruntime session on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    providers = ["CPUExecutionProvider"]
    return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=providers)


def timed(case: Case, rounds: int) -> list[float]:
    """Milliseconds of onnxruntime and of graphkiln, whose results must agree."""
    import graphkiln

    proto, feeds = case
    sides = [peer(proto), graphkiln.compile(proto, jobs=1).session(threads=1)]
    for want, got in zip(*(side.run(None, feeds) for side in sides), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5)
    return [1e3 * s for s in best([partial(side.run, None, feeds) for side in sides], rounds)]


@click.command()
@click.argument("names", nargs=-1)
@click.option("--rounds", default=15, show_default=True, help="Turns of each side.")
def main(names: tuple[str, ...], rounds: int) -> None:
    """Time each case (or those whose name holds one of NAMES), and compare the results."""
    click.echo("| what | onnxruntime | graphkiln | ratio |\n|---|---|---|---|")
    for name, make in CASES.items():
        if not names or any(n in name for n in names):
            theirs, ours = timed(make(), rounds)
            click.echo(f"| {name} | {theirs:.3g} | {ours:.3g} | {ours / theirs:.2f} |")


if __name__ == "__main__":
    main()
