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


def graph(lines: str, kind: str = "uint8", more: Mapping[str, np.ndarray] | None = None,
          params: str = "") -> Graph:  # fmt: skip
    texts, by_hash = constant_lines({**CONSTANTS, **(more or {})})
    head = f"graph main(%x: {kind}[2,{C},7,5]{params}) -> (y)"
    return graph_of(f"{head} {{\n{texts}\n{lines}\nreturn %y\n}}", by_hash)


def applied(g: Graph, tolerance: float = 1e-5) -> Mapping[str, int]:
    """How often each rule of the pass applies; results are within a step of bytes, or within
    ``tolerance``. Inputs besides x are 3, or 0.3.
    """
    x = np.random.default_rng(4).integers(0, 256, (2, C, 7, 5)).astype(np.uint8)
    feeds = {"x": x if g.inputs[0].dtype == "uint8" else (x.astype(F32) - 128) / 8}
    for v in g.inputs[1:]:
        number = 0.3 if v.dtype == "float32" else 3
        feeds[v.name] = np.full(v.tensor_type.static_shape, number, v.dtype)
    expected = evaluate(g, feeds)[0]
    done = run(g, "qdq_fuse{always=true},dce").records[0].details
    actual = evaluate(g, feeds)[0]
    assert (actual.dtype, actual.shape) == (expected.dtype, expected.shape)
    if expected.dtype.kind == "f":
        np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)
    else:
        assert np.abs(actual.astype(int) - expected.astype(int)).max() <= STEP
        assert len(np.unique(expected)) > 20
    return done


def left(g: Graph, tolerance: float = 1e-5) -> list[str]:
    """The ops that the pass leaves."""
    applied(g, tolerance)
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


DATA, WEIGHTS = BY_CHANNEL.format("%zs"), "%wf = DequantizeLinear(%w, %sw)\n"
DEPTHWISE = f"%y = Conv(%f, %wf) {{group={C}}}"
OTHERS = {
    "zero points differ": (BY_CHANNEL.format("%zd") + WEIGHTS + DEPTHWISE, ""),
    "all channels are summed": (
        DATA + "%wf = DequantizeLinear(%v, %sw)\n%y = Conv(%f, %wf)", ""
    ),
    "scales by image": (
        "%f = DequantizeLinear(%x, %s2) {axis=0}\n" + WEIGHTS + DEPTHWISE, ""
    ),
    "weights in blocks": (
        DATA + "%wf = DequantizeLinear(%w, %sb) {axis=0, block_size=3}\n" + DEPTHWISE, ""
    ),
    "weights by column": (
        DATA + "%wf = DequantizeLinear(%w32, %s2) {axis=3}\n" + DEPTHWISE, ""
    ),
    "run-time scales": (
        "%f = DequantizeLinear(%x, %p) {axis=1}\n" + WEIGHTS + DEPTHWISE, f", %p: float32[{C}]"
    ),
    "run-time weights": (
        DATA + "%wf = DequantizeLinear(%p, %sw)\n" + DEPTHWISE, f", %p: int8[{C},1,3,3]"
    ),
    "run-time scale of weights": (
        DATA + "%wf = DequantizeLinear(%w, %p)\n" + DEPTHWISE, ", %p: float32[]"
    ),
    "run-time zero point of weights": (
        DATA + "%wf = DequantizeLinear(%w, %sw, %p)\n" + DEPTHWISE, ", %p: int8[]"
    ),
    "float16 scale of weights": (
        DATA + "%wf = DequantizeLinear(%w, %half) {output_dtype=1}\n" + DEPTHWISE, ""
    ),
}  # fmt: skip


@pytest.mark.parametrize("lines, params", OTHERS.values(), ids=OTHERS)
def test_other_convolutions_stay(lines: str, params: str) -> None:
    more = {
        "s2": F32([0.02, 0.03]), "sb": np.full((2, 1, 3, 3), 0.02, F32), "half": np.float16(0.02),
        "w32": np.ones((C, 1, 3, 2), np.int8),
    }  # fmt: skip
    g = graph(lines, more=more, params=params)
    assert "depthwise-scales" not in applied(g)
    assert "Conv" in [n.op for n in g.topological()]


@pytest.mark.parametrize("data, weights", [(1e30, 1e10), (1e-30, 1e-20), (1e-20, 1e-20)])
def test_depthwise_scales_whose_product_leaves_float32_stay(data: float, weights: float) -> None:
    more = {"sc": np.full(C, data, F32), "sw": F32(weights)}
    g = graph("%f = DequantizeLinear(%x, %sc) {axis=1}\n" + WEIGHTS + DEPTHWISE, more=more)
    nothing = {"x": np.zeros((2, C, 7, 5), np.uint8)}
    expected = evaluate(g, nothing)[0]
    assert "depthwise-scales" not in run(g, "qdq_fuse{always=true},dce").records[0].details
    np.testing.assert_array_equal(evaluate(g, nothing)[0], expected)


def test_depthwise_convolutions_may_share_their_weights() -> None:
    g = graph(DATA + WEIGHTS + f"%c = Conv(%f, %wf) {{group={C}}}\n"
              f"%d = Conv(%f, %wf) {{group={C}, dilations=[2,1], pads=[1,0,1,0]}}\n"
              "%y = Add(%c, %d)")  # fmt: skip
    assert applied(g)["depthwise-scales"] == 2


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
    ops = left(graph(lines, "float32"), 0)
    assert ops == ["Div", "QuantizeLinear", "DequantizeLinear", "Mul"]


def test_the_type_of_what_is_quantised_by_channel_stays() -> None:
    lines = "%y = QuantizeLinear(%x, %sy) {axis=1, output_dtype=3}"
    assert left(graph(lines, "float32"), 0) == ["Div", "QuantizeLinear"]


KEPT_BY_CHANNEL = {
    "zero points differ": ("%y = QuantizeLinear(%x, %sy, %zd) {axis=1}", ""),
    "16 bits": ("%y = QuantizeLinear(%x, %sy, %wide) {axis=1}", ""),
    "from 16 bits": (
        "%q = QuantizeLinear(%x, %s, %z16)\n%y = DequantizeLinear(%q, %sy) {axis=1}",
        "",
    ),
    "blocks": ("%y = QuantizeLinear(%x, %sb) {axis=1, block_size=3}", ""),
    "run-time scales": ("%y = QuantizeLinear(%x, %p) {axis=1}", f", %p: float32[{C}]"),
    "float16": ("%h = Cast(%x) {to=10}\n%y = QuantizeLinear(%h, %sh) {axis=1}", ""),
    "float16 scales": ("%y = QuantizeLinear(%x, %sh) {axis=1}", ""),
    "to float16": (
        "%q = QuantizeLinear(%x, %s)\n%y = DequantizeLinear(%q, %sy) {axis=1, output_dtype=10}",
        "",
    ),
    "divided in float16": ("%y = QuantizeLinear(%x, %sy) {axis=1, precision=10}", ""),
    "weights": ("%vf = DequantizeLinear(%v, %s4) {axis=0}\n%y = Conv(%x, %vf)", ""),
}


@pytest.mark.parametrize("lines, params", KEPT_BY_CHANNEL.values(), ids=KEPT_BY_CHANNEL)
def test_what_is_quantised_otherwise_stays(lines: str, params: str) -> None:
    more = {
        "wide": np.full(C, 9, np.uint16), "z16": np.uint16(1000),
        "sb": np.full((2, 2, 7, 5), 0.2, F32), "sh": CONSTANTS["sy"].astype(np.float16),
    }  # fmt: skip
    assert not applied(graph(lines, "float32", more, params), 0)


def scale_of_quantizer(g: Graph) -> np.ndarray | None:
    """The scale that the pass leaves to QuantizeLinear."""
    applied(g)
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
    "float16 scale": ("%y = QuantizeLinear(%c, %th)", ""),
    "blocks": ("%y = QuantizeLinear(%c, %sb) {axis=2, block_size=4}", ""),
}


@pytest.mark.parametrize("line, params", KEPT.values(), ids=KEPT)
def test_what_is_divided_in_the_run(line: str, params: str) -> None:
    more = {
        "n16": np.int16(5), "z4": np.arange(4).astype(np.uint8), "th": np.float16(0.3),
        "sb": np.full((2, 4, 2, 5), 0.3, F32),
    }  # fmt: skip
    scale = scale_of_quantizer(graph(OPEN + line, more=more, params=params))
    assert scale is None or not np.all(scale == 1)


DOUBLE = """%i = ConvInteger(%x, %v, %z)
%c = Cast(%i) {to=11}
%d = Mul(%c, %double)
%y = Div(%d, %double)
"""


def test_sums_in_double_precision_are_divided_in_the_run() -> None:
    assert "Div" in left(graph(DOUBLE, more={"double": np.float64(0.3)}), 0)


def test_sums_in_half_precision_are_quantised_as_they_are() -> None:
    lines = DOUBLE.replace("to=11", "to=10").replace("%y = Div(%d, %double)", "")
    g = graph(lines + "%y = QuantizeLinear(%d, %t)", more={"double": np.float16(0.002)})
    assert scale_of_quantizer(g) == F32(0.3)


def test_others_may_read_the_sums() -> None:
    lines = """%i = ConvInteger(%x, %v, %z)
    %c = Cast(%i) {to=1}
    %d = Mul(%c, %small)
    %e = Mul(%c, %sw)
    %q = QuantizeLinear(%d, %t)
    %r = QuantizeLinear(%e, %t)
    %k = Cast(%q) {to=6}
    %l = Cast(%r) {to=6}
    %j = Add(%i, %k)
    %y = Add(%j, %l)"""
    assert applied(graph(lines, more={"small": F32(0.002)}))["quantized-sums"] == 2


def test_a_divisor_that_broadcasts_the_sums_stays() -> None:
    lines = OPEN + "%d = Div(%c, %more)\n%y = Exp(%d)"
    g = graph(lines, more={"more": np.ones((3, 1, 1, 1, 1), F32) * 100})
    assert left(g) == ["ConvInteger", "Cast", "Mul", "Add", "Div", "Exp"]


@pytest.mark.parametrize("parameters", ["%sw, %n", "%sf, %nf"])
def test_zero_points_of_depthwise_weights_stay_with_them(parameters: str) -> None:
    more = {"nf": np.arange(-3, C - 3).astype(np.int8)}
    lines = f"%wf = DequantizeLinear(%w, {parameters}) {{axis=0}}\n"
    assert left(graph(DATA + lines + DEPTHWISE, more=more)) == ["ConvInteger", "Cast", "Mul"]


def test_others_may_read_the_data_of_a_depthwise_convolution() -> None:
    lines = BY_CHANNEL.format("%zs") + "%wf = DequantizeLinear(%w, %sf) {axis=0}\n"
    lines += f"%c = Conv(%f, %wf) {{group={C}, pads=[1,1,1,1]}}\n%y = Add(%c, %f)"
    assert sorted(left(graph(lines))) == sorted(
        ["ConvInteger", "Cast", "Mul", "DequantizeLinear", "Mul", "Add"]
    )
