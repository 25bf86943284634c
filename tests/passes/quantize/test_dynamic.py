"""The pass that quantizes with ranges that are found in the run."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.graph_text import constant_lines, graph_of

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.verify import verify
from graphkiln.passes.base import PassContext
from graphkiln.passes.quantize import QuantizeDynamic
from graphkiln.targets import parse_target

RNG = np.random.default_rng(5)
M = RNG.standard_normal((24, 10)).astype(np.float32)
G = RNG.standard_normal((7, 24)).astype(np.float32)
C = RNG.standard_normal(7).astype(np.float32)
F = (RNG.standard_normal((6, 3, 3, 3)) / 5).astype(np.float32)
B = RNG.standard_normal(6).astype(np.float32)
LINES, ARRAYS = constant_lines({"m": M, "g": G, "c": C, "f": F, "b": B})
ROWS = f"""graph main(%x: float32[N,24]) -> (o, r) {{
{LINES}
%y = MatMul(%x, %m)
%z = Gemm(%x, %g, %c) {{transB=1}}
return %y, %z
}}"""
IMAGES = f"""graph main(%x: float32[N,3,8,8]) -> (o, r) {{
{LINES}
%y = Conv(%x, %f, %b) {{kernel_shape=[3, 3], pads=[1, 1, 1, 1]}}
%r = Relu(%x)
%z = Conv(%r, %f) {{kernel_shape=[3, 3], pads=[1, 1, 1, 1]}}
return %y, %z
}}"""


def quantized(text: str, step: QuantizeDynamic | None = None, target: str = "cpu") -> Graph:
    graph = graph_of(text, ARRAYS)
    context = PassContext(hardware=parse_target(target).hardware)
    (step or QuantizeDynamic()).run(graph, context)
    context.refresh(graph)
    verify(graph)
    return graph


def ops(graph: Graph) -> list[str]:
    return [n.key for n in graph.topological()]


def rounded_rows(x: np.ndarray, low: int, high: int) -> np.ndarray:
    """What rows become, by the formula."""
    least = np.minimum(x.min(-1, keepdims=True), np.float32(0))
    most = np.maximum(x.max(-1, keepdims=True), np.float32(0))
    scale = np.maximum((most - least) / np.float32(high - low), np.finfo(np.float32).tiny)
    zero = low - np.round(least / scale)
    q = np.clip(np.round(x / scale) + zero, low, high)
    return (q.astype(np.float64) - zero) * scale


def rounded_weights(w: np.ndarray) -> np.ndarray:
    """What weights ``[K, N]`` become."""
    scale = (np.abs(w).max(0) / 127).astype(np.float32)
    return np.round(w.astype(np.float64) / scale) * scale


@pytest.mark.parametrize("target, low, high", [("cpu", 0, 255), ("cpu:aarch64-dotprod", -128, 127)])
def test_rows_have_ranges_of_their_own(target: str, low: int, high: int) -> None:
    x = RNG.standard_normal((5, 24)).astype(np.float32)
    x *= np.array([[1e-3], [1], [1e4], [0], [-3]], np.float32)
    x[4] = np.abs(x[4])
    y, z = evaluate(quantized(ROWS, target=target), {"x": x})
    rows = rounded_rows(x, low, high)
    np.testing.assert_allclose(y, rows @ rounded_weights(M), rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(z, rows @ rounded_weights(G.T) + C, rtol=1e-4, atol=1e-5)


def test_a_tensor_that_two_layers_read_is_quantized_once() -> None:
    assert ops(quantized(ROWS)).count("ReduceMax") == 1
    assert ops(quantized(ROWS)).count("MatMulInteger") == 2


@settings(max_examples=40)
@given(
    st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=24, max_size=24),
    st.sampled_from(["cpu", "cpu:aarch64-dotprod"]),
)
def test_no_integer_leaves_its_type(numbers: list[float], target: str) -> None:
    """Rounding both ends of a range may lead one step out of it; codes wrap around if it did."""
    x = np.array([numbers], np.float32)
    y, _ = evaluate(quantized(ROWS, target=target), {"x": x})
    width = float(max(x.max(), 0)) - float(min(x.min(), 0))
    exact = x.astype(np.float64) @ M
    # A step for each operand, and half a step of each weight.
    bound = width / 255 * np.abs(M).sum(0) + np.abs(x).astype(np.float64).sum() * M.max() / 127
    assert np.all(np.abs(y - exact) <= bound + 1e-30)


def test_samples_have_ranges_of_their_own() -> None:
    x = RNG.standard_normal((3, 3, 8, 8)).astype(np.float32)
    x *= np.array([1e-3, 1, 1e3], np.float32).reshape(3, 1, 1, 1)
    graph = quantized(IMAGES)
    together = evaluate(graph.copy(), {"x": x})
    for i in range(3):
        for both, alone in zip(together, evaluate(graph.copy(), {"x": x[i : i + 1]}), strict=True):
            np.testing.assert_array_equal(both[i : i + 1], alone)
    for found, wanted in zip(together, evaluate(graph_of(IMAGES, ARRAYS), {"x": x}), strict=True):
        for a, b in zip(found, wanted, strict=True):
            assert np.mean((a - b) ** 2) < 3e-4 * np.mean(b**2)


def test_numbers_without_sign_use_all_codes() -> None:
    graph = quantized(IMAGES)
    zeros = {
        int(graph.required_inputs(n)[2].constant) for n in graph.nodes if n.key == "ConvInteger"
    }
    assert zeros == {0, 128}


def test_layers_are_chosen_by_patterns() -> None:
    kept = ops(quantized(ROWS, QuantizeDynamic(exclude=("Gemm",))))
    assert "Gemm" in kept and "MatMul" not in kept


def test_the_report_says_what_stays_in_floats() -> None:
    text = """graph main(%x: float32[2,4,4], %w: float32[4,4]) -> (o) {
%y = MatMul(%x, %w)
%z = MatMul(%x, %y)
return %z
}"""
    graph, context = graph_of(text), PassContext()
    assert QuantizeDynamic().run(graph, context).changes == 0
    assert [(row["scheme"], row["reason"]) for row in context.tables["layers"]] == [
        ("float", "its weights are computed in the run")
    ] * 2


def test_how_much_each_layer_suffers_is_measured() -> None:
    x = RNG.standard_normal((9, 24)).astype(np.float32)
    graph = graph_of(ROWS, ARRAYS)
    noise = QuantizeDynamic().noise(graph, PassContext(data=[{"x": x}]))
    assert list(noise) == ["y", "z"]
    assert all(ratio is not None and 35 < ratio < 55 for ratio in noise.values())
    found, wanted = evaluate(quantized(ROWS), {"x": x})[0], evaluate(graph, {"x": x})[0]
    ratio = 10 * np.log10(np.mean(wanted**2) / np.mean((found - wanted) ** 2))
    assert noise["y"] == pytest.approx(ratio, abs=0.5)


def test_windows_larger_than_images_of_the_usual_size() -> None:
    """What an image of open size is taken for has no place for such a window."""
    window = RNG.standard_normal((16, 1, 256)).astype(np.float32)
    lines, arrays = constant_lines({"w": window})
    text = f"""graph main(%x: float32[N,1,L]) -> (y) {{
{lines}
%y = Conv(%x, %w) {{kernel_shape=[256], strides=[128]}}
return %y
}}"""
    graph = graph_of(text, arrays)
    context = PassContext(hardware=parse_target("cpu:x86-64-v3").hardware)
    QuantizeDynamic().run(graph, context)
    context.refresh(graph)
    verify(graph)
