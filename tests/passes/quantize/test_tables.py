"""Tables that are looked up, in few bits."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import constant_lines, graph_of

import graphkiln
from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.verify import verify
from graphkiln.passes.base import PassContext
from graphkiln.passes.quantize import Quantize, QuantizeDynamic, QuantizeWeights, Rounding

RNG = np.random.default_rng(3)
TABLE = RNG.standard_normal((50, 64)).astype(np.float32)
SMALL = RNG.standard_normal((9, 8)).astype(np.float32)
LINES, ARRAYS = constant_lines({"t": TABLE, "s": SMALL})
NET = f"""graph main(%i: int64[2,N], %j: int64[2,N]) -> (o, p, q) {{
{LINES}
%a = Gather(%t, %i) {{axis=0}}
%b = Gather(%t, %j)
%c = Gather(%s, %i)
return %a, %b, %c
}}"""
PLACES = {"i": RNG.integers(0, 9, (2, 7)), "j": RNG.integers(-50, 50, (2, 7))}

Step = Quantize | QuantizeDynamic | QuantizeWeights


def quantized(step: Step, text: str = NET) -> tuple[Graph, PassContext]:
    graph, context = graph_of(text, ARRAYS), PassContext()
    step.run(graph, context)
    context.refresh(graph)
    verify(graph)
    return graph, context


def noise(graph: Graph) -> list[float]:
    pairs = zip(
        evaluate(graph.copy(), PLACES), evaluate(graph_of(NET, ARRAYS), PLACES), strict=True
    )
    return [float(np.mean((a - b) ** 2) / np.mean(b**2)) for a, b in pairs]


@pytest.mark.parametrize(
    ("step", "scheme", "most"),
    [
        (Quantize(), "int8 weights", 1e-4),
        (QuantizeDynamic(), "int8 weights", 1e-4),
        (QuantizeWeights(bits=8), "int8 weights", 1e-4),
        (QuantizeWeights(bits=4), "int4 weights", 1.2e-2),
        (QuantizeWeights(bits=2, rounding=Rounding.NEAREST), "int2 weights", 0.5),
    ],
)
def test_rows_have_few_bits(step: Step, scheme: str, most: float) -> None:
    graph, context = quantized(step)
    first, second, small = noise(graph)
    assert 0 < first < most and 0 < second < most and small == 0
    told = {row["layer"]: (row["scheme"], row["reason"]) for row in context.tables["layers"]}
    assert told["a"] == told["b"] == (scheme, "")
    assert told["c"][0] == "float" and "its rows" in told["c"][1]


def test_rows_are_those_of_the_codes() -> None:
    """By the formula, for 4 bits and halves to even."""
    graph, _ = quantized(QuantizeWeights(rounding=Rounding.NEAREST))
    blocks = TABLE.reshape(50, 2, 32)
    peak = np.take_along_axis(blocks, np.abs(blocks).argmax(2, keepdims=True), 2)
    scale = (peak.astype(np.float64) / -8).astype(np.float32)
    codes = np.clip(np.round(blocks / scale.astype(np.float64)), -8, 7)
    wanted = (codes * scale).reshape(50, 64)
    found = evaluate(graph, PLACES)
    np.testing.assert_allclose(found[0], wanted[PLACES["i"]], rtol=1e-6)
    np.testing.assert_allclose(found[1], wanted[PLACES["j"]], rtol=1e-6)


def test_a_table_is_kept_once() -> None:
    graph, _ = quantized(QuantizeWeights())
    held = {graph.required_inputs(n)[0] for n in graph.nodes if n.key == "Gather"}
    assert sorted(v.shape for v in held) == [(9, 8), (50, 2), (50, 32)]


def test_layers_are_chosen_by_patterns() -> None:
    graph, context = quantized(QuantizeDynamic(exclude=("a",)))
    assert noise(graph)[0] == 0 < noise(graph)[1]
    reasons = {row["layer"]: row["reason"] for row in context.tables["layers"]}
    assert reasons["a"] == "excluded by 'a'"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("%y = Gather(%t, %i) {axis=1}", "it does not look up rows"),
        ("%y = GatherElements(%t, %i)", "it does not look up rows"),
    ],
)
def test_other_lookups_stay(text: str, reason: str) -> None:
    net = f"graph main(%i: int64[2,3]) -> (o) {{\n{LINES}\n{text}\nreturn %y\n}}"
    _, context = quantized(QuantizeWeights(), net)
    (row,) = context.tables["layers"]
    assert (row["scheme"], row["reason"]) == ("float", reason)


def test_compiled_code_gives_the_same() -> None:
    (y,) = (
        graphkiln.compile(model(), passes="default@before(integers)=quantize_weights", jobs=1)
        .session(threads=1)
        .run(None, {"i": PLACES["i"]})
    )
    (wanted,) = evaluate(quantized(QuantizeWeights())[0], PLACES)[:1]
    np.testing.assert_allclose(y, wanted, rtol=1e-6)


def model() -> object:
    import onnx

    found = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["": 21]> g (int64[A, B] i) => (float[A, B, 64] y)'
        " { y = Gather(t, i) }"
    )
    found.graph.initializer.append(onnx.numpy_helper.from_array(TABLE, "t"))
    return found
