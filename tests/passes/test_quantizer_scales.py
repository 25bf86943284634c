"""Scales by channel of activations, and of sums: where they go, and what results they give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from support.graph_text import constant_lines, graph_of
from support.pass_checks import run

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate

F32 = np.float32
RNG = np.random.default_rng(3)
C = 6
CONSTANTS = {
    "s": F32(0.05), "t": F32(0.3), "z": np.uint8(128), "zs": np.full(C, 128, np.uint8),
    "zd": np.arange(C).astype(np.uint8), "n": np.int8(4),
    "sc": RNG.uniform(0.02, 0.1, C).astype(F32), "sy": RNG.uniform(0.2, 0.5, C).astype(F32),
    "w": RNG.integers(-99, 99, (C, 1, 3, 3)).astype(np.int8), "sw": F32(0.02),
    "sf": RNG.uniform(0.01, 0.03, C).astype(F32),
    "v": RNG.integers(-99, 99, (4, C, 1, 1)).astype(np.int8), "b": RNG.normal(size=C).astype(F32),
    "w2": RNG.integers(-99, 99, (2 * C, 1, 3, 3)).astype(np.int8),
    "bv": RNG.normal(size=4).astype(F32), "tiny": F32(1e-38), "s4": F32([0.3, 0.4, 0.5, 0.6]),
}  # fmt: skip
STEP = 1


def graph(lines: str, kind: str = "uint8", more: Mapping[str, np.ndarray] | None = None) -> Graph:
    texts, by_hash = constant_lines({**CONSTANTS, **(more or {})})
    text = f"graph main(%x: {kind}[2,{C},7,5]) -> (y) {{\n{texts}\n{lines}\nreturn %y\n}}"
    return graph_of(text, by_hash)


def left(g: Graph, tolerance: float = 1e-5, kind: str = "uint8") -> list[str]:
    """The ops that the pass leaves; results are within a step of bytes, or within ``tolerance``."""
    x = np.random.default_rng(4).integers(0, 256, (2, C, 7, 5)).astype(np.uint8)
    feeds = {"x": x if kind == "uint8" else (x.astype(F32) - 128) / 8}
    expected = evaluate(g, feeds)[0]
    run(g, "qdq_fuse{always=true},dce")
    actual = evaluate(g, feeds)[0]
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    if expected.dtype == F32:
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)
    else:
        assert np.abs(actual.astype(int) - expected.astype(int)).max() <= STEP
        assert len(np.unique(expected)) > 20
    return [n.op for n in g.topological() if n.key != "Constant"]


BY_CHANNEL = "%f = DequantizeLinear(%x, %sc, {}) {{axis=1}}\n"


@pytest.mark.parametrize("zeros", ["%zs", "_"])
@pytest.mark.parametrize("weights", [
    "%wf = DequantizeLinear(%w, %sw)\n", "%wf = DequantizeLinear(%w, %sf) {axis=0}\n",
    "%wf = DequantizeLinear(%w2, %sw)\n",
])  # fmt: skip
def test_scales_of_depthwise_data_belong_to_the_weights(zeros: str, weights: str) -> None:
    lines = BY_CHANNEL.format(zeros) + weights + f"%y = Conv(%f, %wf) {{group={C}, pads=[1,1,1,1]}}"
    assert left(graph(lines)) == ["ConvInteger", "Cast", "Mul"]


def test_a_depthwise_convolution_between_quantizers() -> None:
    lines = BY_CHANNEL.format("%zs") + "%wf = DequantizeLinear(%w, %sf) {axis=0}\n"
    lines += f"%c = Conv(%f, %wf, %b) {{group={C}}}\n%y = QuantizeLinear(%c, %t, %z)"
    assert left(graph(lines)) == ["ConvInteger", "Cast", "Mul", "Add", "QuantizeLinear"]


@pytest.mark.parametrize("lines", [
    # Zero points differ.
    BY_CHANNEL.format("%zd") + f"%wf = DequantizeLinear(%w, %sw)\n%y = Conv(%f, %wf) {{group={C}}}",
    # All channels are summed.
    BY_CHANNEL.format("%zs") + "%wf = DequantizeLinear(%v, %sw)\n%y = Conv(%f, %wf)",
])  # fmt: skip
def test_other_convolutions_stay(lines: str) -> None:
    assert "Conv" in left(graph(lines))


OPEN = """%f = DequantizeLinear(%x, %s, %z)
%vf = DequantizeLinear(%v, %sw)
%c = Conv(%f, %vf, %bv)
"""


def test_sums_are_quantised_without_a_division() -> None:
    g = graph(OPEN + "%y = QuantizeLinear(%c, %t, %n)")
    assert left(g) == ["ConvInteger", "Cast", "Mul", "Add", "QuantizeLinear"]
    (q,) = (n for n in g.topological() if n.op == "QuantizeLinear")
    scale = g.required_inputs(q)[1].constant
    assert scale is not None and scale == 1


def test_sums_are_quantised_by_channel() -> None:
    g = graph(OPEN + "%y = QuantizeLinear(%c, %s4) {axis=1}")
    assert left(g) == ["ConvInteger", "Cast", "Mul", "Add", "QuantizeLinear"]


def test_scales_that_vanish_stay() -> None:
    g = graph(OPEN + "%d = Mul(%c, %tiny)\n%y = Mul(%d, %tiny)")
    assert left(g) == ["ConvInteger", "Cast", "Mul", "Add", "Mul", "Mul"]
    small = {"s": F32(1e-30), "sw": F32(1e-6)}
    g = graph(OPEN.replace(", %bv", "") + "%y = QuantizeLinear(%c, %t)", more={**small})
    expected = evaluate(g, {"x": np.full((2, C, 7, 5), 255, np.uint8)})[0]
    run(g, "qdq_fuse{always=true},dce")
    actual = evaluate(g, {"x": np.full((2, C, 7, 5), 255, np.uint8)})[0]
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("zero", ["%zs", "_"])
def test_what_is_quantised_by_channel_elsewhere(zero: str) -> None:
    lines = f"%q = QuantizeLinear(%x, %sy, {zero}) {{axis=1}}\n"
    lines += f"%y = DequantizeLinear(%q, %sy, {zero}) {{axis=-3}}"
    ops = left(graph(lines, "float32"), 0, "float32")
    assert ops == ["Div", "QuantizeLinear", "DequantizeLinear", "Mul"]


def test_different_zero_points_stay() -> None:
    lines = "%q = QuantizeLinear(%x, %sy, %zd) {axis=1}\n%y = Cast(%q) {to=1}"
    assert left(graph(lines, "float32"), 0, "float32") == ["QuantizeLinear", "Cast"]


def scale_of_quantizer(g: Graph) -> np.ndarray | None:
    """The scale that the pass leaves to QuantizeLinear."""
    x = np.random.default_rng(4).integers(0, 256, (2, C, 7, 5)).astype(np.uint8)
    feeds = {"x": x, **{v.name: np.array(3, v.dtype) for v in g.inputs[1:]}}
    expected = evaluate(g, feeds)[0]
    run(g, "qdq_fuse{always=true},dce")
    actual = evaluate(g, feeds)[0]
    assert np.abs(actual.astype(int) - expected.astype(int)).max() <= STEP
    (q,) = (n for n in g.topological() if n.op == "QuantizeLinear")
    return g.required_inputs(q)[1].constant


@pytest.mark.parametrize("product", [
    "%c = Conv(%f, %vf)\n%d = Mul(%c, %two)\n",
    "%r = kiln.Reshape(%f) {shape=[70, 6]}\n%mf = DequantizeLinear(%m, %sw)\n"
    "%c = MatMul(%r, %mf)\n%d = Mul(%c, %two)\n",
])  # fmt: skip
@pytest.mark.parametrize("zero", ["", ", %n"])
def test_sums_without_a_bias_are_quantised_at_once(product: str, zero: str) -> None:
    """``Cast(sums) * scale`` as it stands in a model."""
    names = {"Conv(%f, %vf)": "ConvInteger(%x, %v, %z)", "MatMul(%r, %mf)": "MatMulInteger(%r, %m)"}
    (call,) = (n for n in names if n in product)
    lines = product.replace(call, names[call]).replace("%f", "%x")
    lines = lines.replace("%d = Mul(%c", "%e = Cast(%c) {to=1}\n%d = Mul(%e")
    lines = "\n".join(s for s in lines.split("\n") if "%mf" not in s)
    more = {"m": RNG.integers(-99, 99, (C, 4)).astype(np.int8), "two": F32(0.002)}
    g = graph(f"{lines}\n%y = QuantizeLinear(%d, %t{zero})", more=more)
    assert scale_of_quantizer(g) == 1


KEPT = {
    "16 bits": ("%y = QuantizeLinear(%c, %t, %n16)", ""),
    "run-time scale": ("%y = QuantizeLinear(%c, %p, %n)", ", %p: float32[]"),
    "run-time zero point": ("%y = QuantizeLinear(%c, %t, %p)", ", %p: uint8[]"),
    "zero points differ": ("%y = QuantizeLinear(%c, %s4, %z4) {axis=1}", ""),
    "float16": ("%y = QuantizeLinear(%c, %t) {precision=10}", ""),
}


@pytest.mark.parametrize("line, params", KEPT.values(), ids=KEPT)
def test_what_is_divided_in_the_run(line: str, params: str) -> None:
    more = {"n16": np.int16(5), "z4": np.arange(4).astype(np.uint8)}
    texts, by_hash = constant_lines({**CONSTANTS, **more})
    head = f"graph main(%x: uint8[2,{C},7,5]{params}) -> (y)"
    g = graph_of(f"{head} {{\n{texts}\n{OPEN}{line}\nreturn %y\n}}", by_hash)
    scale = scale_of_quantizer(g)
    assert scale is None or not np.all(scale == 1)


def test_a_divisor_that_broadcasts_the_sums_stays() -> None:
    lines = OPEN + "%d = Div(%c, %more)\n%y = Exp(%d)"
    g = graph(lines, more={"more": np.ones((3, 1, 1, 1, 1), F32) * 100})
    assert left(g) == ["ConvInteger", "Cast", "Mul", "Add", "Div", "Exp"]


def test_zero_points_of_depthwise_weights_stay_with_them() -> None:
    lines = BY_CHANNEL.format("%zs") + "%wf = DequantizeLinear(%w, %sw, %n)\n"
    lines += f"%y = Conv(%f, %wf) {{group={C}}}"
    assert left(graph(lines)) == ["ConvInteger", "Cast", "Mul"]


def test_others_may_read_the_data_of_a_depthwise_convolution() -> None:
    lines = BY_CHANNEL.format("%zs") + "%wf = DequantizeLinear(%w, %sf) {axis=0}\n"
    lines += f"%c = Conv(%f, %wf) {{group={C}, pads=[1,1,1,1]}}\n%y = Add(%c, %f)"
    assert sorted(left(graph(lines))) == sorted(
        ["ConvInteger", "Cast", "Mul", "DequantizeLinear", "Mul", "Add"]
    )
