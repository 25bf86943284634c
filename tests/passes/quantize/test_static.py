"""The pass that quantizes: what it puts where, which ranges it takes, what it reports."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.graph_text import constant_lines, graph_of

from graphkiln.ir.graph import Graph, GraphError
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.verify import verify
from graphkiln.passes.base import PassContext
from graphkiln.passes.quantize import Method, Quantize
from graphkiln.passes.ranges import Range
from graphkiln.passes.services import reference_runner

RNG = np.random.default_rng(11)
W = (RNG.standard_normal((6, 3, 3, 3)) / 5).astype(np.float32)
B = RNG.standard_normal(6).astype(np.float32)
M = (RNG.standard_normal((6, 4)) / 3).astype(np.float32)
CONSTANTS, ARRAYS = constant_lines({"w": W, "b": B, "m": M, "axes": np.array([2, 3])})
NET = f"""graph main(%x: float32[1,3,8,8]) -> (o) {{
{CONSTANTS}
%c = Conv(%x, %w, %b) {{kernel_shape=[3, 3]}}
%r = Relu(%c)
%p = ReduceMean(%r, %axes) {{keepdims=0}}
%y = MatMul(%p, %m)
return %y
}}"""


def net() -> Graph:
    return graph_of(NET, ARRAYS)


def samples(count: int = 4) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(count)
    return [{"x": rng.standard_normal((1, 3, 8, 8)).astype(np.float32)} for _ in range(count)]


def context(data: Any = (), ranges: dict[str, Range] | None = None) -> PassContext:
    return PassContext(data=data, ranges={} if ranges is None else ranges)


def quantized(step: Quantize, used: PassContext, graph: Graph | None = None) -> Graph:
    graph = graph or net()
    step.run(graph, used)
    used.refresh(graph)
    verify(graph)
    return graph


def ops(graph: Graph) -> list[str]:
    return [n.key for n in graph.topological() if n.key not in ("Input", "Constant", "Output")]


def test_products_read_quantized_operands() -> None:
    graph = quantized(Quantize(), context(samples()))
    assert sorted(ops(graph)) == sorted(
        ["QuantizeLinear"] * 2 + ["DequantizeLinear"] * 5
        + ["Conv", "Relu", "ReduceMean", "MatMul"]
    )  # fmt: skip
    for product in ("Conv", "MatMul"):
        (node,) = (n for n in graph.nodes if n.key == product)
        for value in graph.required_inputs(node):
            assert value.node.key == "DequantizeLinear"


def test_the_result_is_close() -> None:
    graph = quantized(Quantize(), context(samples()))
    for feeds in samples(4):
        (wanted,), (found,) = evaluate(net(), feeds), evaluate(graph.copy(), feeds)
        noise = np.mean((found - wanted) ** 2) / np.mean(wanted**2)
        assert 0 < noise < 1e-3


def test_ranges_are_those_of_the_samples() -> None:
    used = context(samples())
    quantized(Quantize(), used)
    x = np.stack([s["x"] for s in samples()])
    assert used.ranges["x"] == Range(float(x.min()), float(x.max()))
    assert set(used.ranges) == {"x", "p"}


def test_given_ranges_need_no_samples() -> None:
    used = context(samples())
    wanted = quantized(Quantize(), used)
    found = quantized(Quantize(), context(ranges=dict(used.ranges)))
    (feeds, *_) = samples()
    for a, b in zip(evaluate(wanted, feeds), evaluate(found, feeds), strict=True):
        np.testing.assert_array_equal(a, b)


def test_given_ranges_come_first_and_hold_zero() -> None:
    used = context(samples(), {"x": Range(1.0, 7.0)})
    graph = quantized(Quantize(), used)
    assert used.ranges["x"] == Range(0.0, 7.0)
    scales = [float(graph.required_inputs(n)[1].constant) for n in graph.nodes
              if n.key == "QuantizeLinear"]  # fmt: skip
    assert np.float32(7 / 255) in np.float32(scales)


def test_ranges_of_other_tensors_are_told() -> None:
    used = context(samples(), {f"no{i}": Range(0.0, 1.0) for i in range(7)})
    quantized(Quantize(), used)
    told = "no tensor 'no0', 'no1', 'no2', 'no3', 'no4' and 2 others is quantized, but has a range"
    assert used.warnings == [told]


def test_samples_must_be_given() -> None:
    with pytest.raises(GraphError, match="the range of 'x' is not known: give sample data"):
        Quantize().run(net(), context())


def test_what_only_moves_is_not_observed() -> None:
    """Its numbers were counted where they come from."""
    lines, arrays = constant_lines({"w": W})
    text = f"""graph main(%x: float32[1,3,8,8]) -> (y) {{
{lines}
%p = MaxPool(%x) {{kernel_shape=[2, 2], strides=[2, 2]}}
%y = Conv(%p, %w) {{kernel_shape=[3, 3]}}
return %y
}}"""
    data, used = samples(), context(samples())
    observed: list[Graph] = []

    def runner(graph: Graph) -> Any:
        observed.append(graph)
        return reference_runner(graph)

    used.runner = runner
    Quantize().run(graph_of(text, arrays), used)
    assert [n.key for n in observed[0].nodes] == ["kiln.Observe"]
    x = np.stack([s["x"] for s in data])
    wanted = Range(float(x.min()), float(x.max()))
    assert used.ranges == {"x": wanted, "p": wanted}
    assert [row["histogram"] is not None for row in used.tables["tensors"]] == [True, True]


def test_ranges_by_extremes_need_no_counts() -> None:
    """The samples that are counted may hold nothing of a tensor that others do."""
    lines, arrays = constant_lines({"w": np.ones((4, 4), np.float32)})
    text = f"graph main(%x: float32[N,4]) -> (o) {{\n{lines}\n%o = MatMul(%x, %w)\nreturn %o\n}}"
    data = [{"x": np.zeros((0, 4), np.float32)}] * 16 + [{"x": np.eye(4, dtype=np.float32)}]
    data = [data[0], *data]  # the last one is not counted
    used = context(data)
    Quantize().run(graph_of(text, arrays), used)
    assert used.ranges["x"] == Range(0.0, 1.0)
    (row,) = used.tables["tensors"]
    assert row["seen"] == [0.0, 1.0] and row["histogram"] is None and row["decibels"] is None


def test_the_method_decides() -> None:
    data = samples()
    data[0]["x"][0, 0, 0, 0] = 100
    wide, narrow = context(data), context(data)
    quantized(Quantize(), wide)
    quantized(Quantize(method=Method.PERCENTILE, share=0.99), narrow)
    assert wide.ranges["x"].high == 100 and narrow.ranges["x"].high < 5


@pytest.mark.parametrize(
    ("step", "left"),
    [
        (Quantize(exclude=("MatMul",)), {"MatMul": "excluded by 'MatMul'"}),
        (Quantize(only=("Conv",)), {"MatMul": "not among those asked for"}),
        (Quantize(exclude=("Co*",)), {"Conv": "excluded by 'Co*'"}),
    ],
)
def test_layers_are_left_out(step: Quantize, left: dict[str, str]) -> None:
    used = context(samples())
    graph = quantized(step, used)
    for key, reason in left.items():
        (node,) = (n for n in graph.nodes if n.key == key)
        assert all(v.node.key != "DequantizeLinear" for v in graph.required_inputs(node))
        (row,) = (row for row in used.tables["layers"] if row["op"] == key)
        assert (row["scheme"], row["reason"]) == ("float", reason)


def test_products_of_computed_tensors_stay() -> None:
    text = "graph main(%x: float32[1,3,8,8]) -> (o) {\n%y = MatMul(%x, %x)\nreturn %y\n}"
    used = context(samples())
    assert ops(quantized(Quantize(), used, graph_of(text))) == ["MatMul"]
    (row,) = used.tables["layers"]
    assert row["reason"] == "both operands are computed in the run"


def test_the_report() -> None:
    used = context(samples())
    quantized(Quantize(), used)
    conv, matmul = used.tables["layers"]
    assert (conv["op"], matmul["op"]) == ("Conv", "MatMul")
    assert conv["scheme"] == matmul["scheme"] == "static int8" and conv["reason"] == ""
    assert 35 < conv["decibels"] < 60
    first, second = used.tables["tensors"]
    assert (first["tensor"], second["tensor"]) == ("x", "p")
    assert first["seen"] == [first["low"], first["high"]]
    assert sum(first["histogram"]) == 4 * 3 * 8 * 8 and 30 < first["decibels"] < 60


def test_a_large_bias_stays_a_float() -> None:
    arrays = {"w": W, "b": np.full(6, 1e9, np.float32)}
    lines, held = constant_lines(arrays)
    text = (f"graph main(%x: float32[1,3,8,8]) -> (o) {{\n{lines}\n"
            "%y = Conv(%x, %w, %b) {kernel_shape=[3, 3]}\nreturn %y\n}")  # fmt: skip
    graph = quantized(Quantize(), context(samples()), graph_of(text, held))
    (conv,) = (n for n in graph.nodes if n.key == "Conv")
    assert graph.required_inputs(conv)[2].is_constant


def test_weights_that_are_no_numbers_stay() -> None:
    lines, held = constant_lines({"w": np.full_like(W, np.nan)})
    text = (f"graph main(%x: float32[1,3,8,8]) -> (o) {{\n{lines}\n"
            "%y = Conv(%x, %w) {kernel_shape=[3, 3]}\nreturn %y\n}")  # fmt: skip
    used = context(samples())
    graph = quantized(Quantize(), used, graph_of(text, held))
    assert ops(graph) == ["Conv"]
    assert "holds infinity or NaN" in used.tables["layers"][0]["reason"]


def test_a_graph_without_products_stays() -> None:
    graph = graph_of("graph main(%x: float32[2]) -> (o) {\n%y = Relu(%x)\nreturn %y\n}")
    assert Quantize().run(graph, context()).changes == 0


@settings(max_examples=15, deadline=None)
@given(
    scale=st.floats(1e-3, 1e3), shift=st.floats(-2, 2), seed=st.integers(0, 1000),
    method=st.sampled_from(list(Method)),
)  # fmt: skip
def test_any_data(scale: float, shift: float, seed: int, method: Method) -> None:
    """Within the noise of 8 bits, whatever the size of the numbers."""
    rng = np.random.default_rng(seed)
    x = ((rng.standard_normal((1, 3, 8, 8)) + shift) * scale).astype(np.float32)
    parts = []
    for graph in (quantized(Quantize(method=method), context([{"x": x}])), net()):
        conv = next(n for n in graph.nodes if n.key == "Conv")
        graph.set_outputs([conv.out()], ["o"])
        parts.append(evaluate(graph, {"x": x})[0])
    found, wanted = parts
    bias = B.reshape(1, -1, 1, 1)
    assert np.mean((found - wanted) ** 2) < 0.02 * np.mean((wanted - bias) ** 2) + 1e-9
