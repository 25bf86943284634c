"""Batch norms, per-channel constants and pads that move into linear ops."""

from __future__ import annotations

import numpy as np
import pytest
from support.pass_checks import Golden, check, random_feeds, run, same

from graphkiln.ir.graph import Graph, Value
from graphkiln.ir.infer import infer_types
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.types import tensor
from graphkiln.passes.base import PassContext

Array = np.ndarray

CONV = """
graph main(%x: float32[1,2,3,3]) -> (y) {
  %w = constant float32[2,2,1,1] [1.0, 2.0, 3.0, 4.0]
  %b = constant float32[2] [0.5, -0.5]
  %scale = constant float32[2] [2.0, 4.0]
  %bias = constant float32[2] [1.0, 2.0]
  %mean = constant float32[2] [0.25, 0.5]
  %var = constant float32[2] [3.0, 8.0]
  %c = Conv(%x, %w, %b)
  %n = BatchNormalization(%c, %scale, %bias, %mean, %var) {epsilon=1.0}
  %y = Relu(%n)
  return %y
}
"""

LONE = """
graph main(%x: float32[N,2,3]) -> (y) {
  %scale = constant float32[2] [2.0, 4.0]
  %bias = constant float32[2] [1.0, 2.0]
  %mean = constant float32[2] [0.25, 0.5]
  %var = constant float32[2] [3.0, 8.0]
  %y = BatchNormalization(%x, %scale, %bias, %mean, %var) {epsilon=1.0}
  return %y
}
"""

PADS = """
graph main(%x: float32[1,2,6,6]) -> (a, b, c, d) {
  %w = constant float32[1,2,1,1] [1.0, 2.0]
  %pads = constant int64[8] [0, 0, 1, 1, 0, 0, 1, 2]
  %lowest = constant float32[] -inf
  %p = Pad(%x, %pads)
  %a = Conv(%p, %w) {pads=[1, 0, 0, 0]}
  %b = AveragePool(%p) {kernel_shape=[2, 2]}
  %r = Relu(%x)
  %q = Pad(%r, %pads)
  %c = MaxPool(%q) {kernel_shape=[3, 3], strides=[2, 2]}
  %l = Pad(%x, %pads, %lowest)
  %d = MaxPool(%l) {kernel_shape=[3, 3]}
  return %a, %b, %c, %d
}
"""


@pytest.mark.parametrize(
    ("name", "text"), [("affine_conv", CONV), ("affine_lone", LONE), ("affine_pads", PADS)]
)
def test_golden(golden: Golden, name: str, text: str) -> None:
    check(golden, name, text, "fold_affine,dce")


# ---- every op, before and after ------------------------------------------------------------------

RNG = np.random.default_rng(3)


def _random(*shape: int) -> Array:
    return RNG.normal(size=shape).astype(np.float32)


CASES: dict[str, tuple[str, tuple[int, ...], tuple[int, ...], dict[str, object]]] = {
    "conv": ("Conv", (1, 4, 5, 5), (6, 4, 3, 3), {"pads": (1, 1, 1, 1)}),
    "grouped": ("Conv", (1, 4, 5, 5), (6, 2, 3, 3), {"group": 2}),
    "depthwise": ("Conv", (1, 4, 5), (4, 1, 3), {"group": 4}),
    "transposed": ("ConvTranspose", (1, 4, 5, 5), (4, 3, 2, 2), {"group": 2}),
    "gemm": ("Gemm", (3, 4), (4, 6), {"alpha": 0.5, "beta": 2.0}),
    "gemm-transposed": ("Gemm", (3, 4), (6, 4), {"transB": 1}),
    "matmul": ("MatMul", (2, 3, 4), (4, 6), {}),
}


def _graph(
    case: str, *, before: tuple[str, bool] | None, after: tuple[str, bool] | None, bias: bool
) -> Graph:
    """The op with constants applied before and after; the flag says: one for each channel."""
    op, x_shape, w_shape, attrs = CASES[case]
    graph = Graph()
    value = graph.add_input("x", tensor("float32", *x_shape))
    convolution = op.startswith("Conv")
    if before is not None:
        value = _apply(graph, value, before, x_shape, convolution)
    inputs = [value, graph.add_constant(_random(*w_shape))]
    if bias:
        outputs = 6 if case not in ("depthwise",) else 4
        inputs.append(graph.add_constant(_random(outputs)))
    node = graph.add_node(op, inputs, attrs)  # type: ignore[arg-type]
    graph.set_outputs([node.out()])
    infer_types(graph)
    result = node.out()
    if after is not None:
        shape = tuple(int(d) for d in result.shape)  # type: ignore[arg-type]
        result = _apply(graph, result, after, shape, convolution)
    graph.set_outputs([result])
    infer_types(graph)
    return graph


def _apply(
    graph: Graph, value: Value, what: tuple[str, bool], shape: tuple[int, ...], convolution: bool
) -> Value:
    op, per_channel = what
    rank = len(shape)
    axis = 1 if convolution else rank - 1
    constant = _random(shape[axis]).reshape([-1] + [1] * (rank - 1 - axis))
    array = constant if per_channel else np.float32(1.5)
    return graph.add_node(op, [value, graph.add_constant(array)]).out()


def _run(graph: Graph) -> list[str]:
    feeds = random_feeds(graph)
    expected = evaluate(graph, feeds)
    run(graph, "fold_affine,dce")
    same(evaluate(graph, feeds), expected)
    return [n.op for n in graph.topological()]


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("op", ["Mul", "Add", "Sub"])
@pytest.mark.parametrize("case", CASES)
def test_after(case: str, op: str, per_channel: bool) -> None:
    linear = CASES[case][0]
    ops = _run(_graph(case, before=None, after=(op, per_channel), bias=linear != "MatMul"))
    absorbed = op == "Mul" or linear != "MatMul"
    assert ops == ([linear] if absorbed else [linear, op])


@pytest.mark.parametrize("op", ["Mul", "Add", "Sub"])
@pytest.mark.parametrize("case", CASES)
def test_before(case: str, op: str) -> None:
    linear = CASES[case][0]
    ops = _run(_graph(case, before=(op, True), after=None, bias=False))
    padded = "pads" in CASES[case][3]
    absorbed = linear != "ConvTranspose" and (op == "Mul" or linear != "MatMul" and not padded)
    assert ops == ([linear] if absorbed else [op, linear])


@pytest.mark.parametrize("case", CASES)
def test_both_sides_and_bias(case: str) -> None:
    linear = CASES[case][0]
    ops = _run(_graph(case, before=("Mul", True), after=("Mul", True), bias=linear != "MatMul"))
    assert ops == (["Mul", linear] if linear == "ConvTranspose" else [linear])


def test_a_scale_passes_the_bias_of_a_matmul() -> None:
    graph = Graph()
    x = graph.add_input("x", tensor("float32", 3, 4))
    product = graph.add_node("MatMul", [x, graph.add_constant(_random(4, 6))]).out()
    biased = graph.add_node("Add", [product, graph.add_constant(_random(6))]).out()
    scaled = graph.add_node("Mul", [biased, graph.add_constant(np.float32(0.125))]).out()
    graph.set_outputs([scaled])
    infer_types(graph)
    assert _run(graph) == ["MatMul", "Add"]


@pytest.mark.parametrize(
    ("constant", "reason"),
    [
        (_random(6, 3, 3), "varies within a channel"),
        (_random(2, 1, 1, 1), "broadcasts the result"),
    ],
)
def test_constants_that_are_not_by_channel_stay(constant: Array, reason: str) -> None:
    graph = Graph()
    x = graph.add_input("x", tensor("float32", 1, 4, 5, 5))
    y = graph.add_node("Conv", [x, graph.add_constant(_random(6, 4, 3, 3))]).out()
    z = graph.add_node("Mul", [y, graph.add_constant(constant)]).out()
    graph.set_outputs([z])
    infer_types(graph)
    reasons: list[str] = []
    context = PassContext(explain=lambda _r, _n, reason: reasons.append(reason))
    assert run(graph, "fold_affine", context).records[0].changes == 0
    assert any(reason in r for r in reasons)


def test_shared_weights_and_shared_results_stay() -> None:
    graph = Graph()
    x = graph.add_input("x", tensor("float32", 3, 4))
    w, s = graph.add_constant(_random(4, 4)), graph.add_constant(_random(4))
    first = graph.add_node("MatMul", [x, w]).out()
    second = graph.add_node("MatMul", [first, w]).out()
    graph.set_outputs([first, graph.add_node("Mul", [second, s]).out()])
    infer_types(graph)
    assert _run(graph) == ["MatMul", "MatMul", "Mul"]


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("%y = MaxPool(%p) {kernel_shape=[3, 3]}", "it pads with 0"),
        ("%y = Conv(%p, %w) {auto_pad=\"SAME_UPPER\"}", "automatic padding"),
        (
            "%y = AveragePool(%p) {kernel_shape=[2, 2], pads=[1, 1, 1, 1]}",
            "counted differently",
        ),
        ("%r = Relu(%x)\n%q = Pad(%r, %pads)\n%y = MaxPool(%q) {kernel_shape=[2, 2]}",
         "a window may lie in the padding"),
        ("%y = Conv(%channels, %v)", "pads batch or channels"),
    ],
)  # fmt: skip
def test_pads_that_stay(line: str, reason: str) -> None:
    from support.graph_text import graph_of

    graph = graph_of(f"""
    graph main(%x: float32[1,2,6,6]) -> (y) {{
      %w = constant float32[1,2,1,1] [1.0, 2.0]
      %v = constant float32[1,4,1,1] [1.0, 2.0, 3.0, 4.0]
      %pads = constant int64[8] [0, 0, 2, 2, 0, 0, 2, 2]
      %both = constant int64[8] [0, 1, 0, 0, 0, 1, 0, 0]
      %p = Pad(%x, %pads)
      %channels = Pad(%x, %both)
      {line}
      return %y
    }}
    """)
    reasons: list[str] = []
    context = PassContext(explain=lambda _r, _n, reason: reasons.append(reason))
    run(graph, "dce,fold_affine", context)
    assert "Pad" in {n.op for n in graph.nodes}
    assert any(reason in r for r in reasons), reasons
