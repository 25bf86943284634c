"""The layout pass: what it makes of each op, and the same numbers before and after."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.layout_cases import LEFT_LAYERS, RECURRENT, Case, floats, scalar, scales, signed
from support.pass_checks import Golden, check, run, same
from support.toy_layouts import TOY, ToyLayouts, cpu_context, toy_context

from graphkiln.ir.choices import Choice, KernelShape, ProductShape
from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.ops.reduce import REDUCTIONS
from graphkiln.ir.types import TensorType, to_numpy_dtype
from graphkiln.passes.base import PassContext
from graphkiln.passes.layout.planner import Planner
from graphkiln.targets.cpu.hardware import CpuHardware

Array = np.ndarray


X8 = "%x: float32[2,8,5,6]"
X6 = "%x: float32[1,6,5,5]"
U8 = "%x: uint8[1,8,5,5]"

FLOAT = {
    "conv_dense": Case(
        X8, "%c = Conv(%x, %w, %b) {strides=[2,1], pads=[1,0,1,2]}\n%y = Relu(%c)",
        {"w": floats(8, 8, 2, 2), "b": floats(8)},
    ),
    "conv_ragged": Case(X6, "%y = Conv(%x, %w, %b)", {"w": floats(5, 6, 2, 2), "b": floats(5)}),
    "conv_few_channels": Case(
        "%x: float32[N,3,7,7]", "%y = Conv(%x, %w) {strides=[2,2]}", {"w": floats(8, 3, 3, 3)}
    ),
    "conv_grouped": Case(
        X8, "%y = Conv(%x, %w, %b) {group=2, pads=[0,1,0,1]}",
        {"w": floats(16, 4, 1, 3), "b": floats(16)},
    ),
    "conv_depthwise": Case(
        X6, "%y = Conv(%x, %w, %b) {group=6, pads=[1,1,1,1]}",
        {"w": floats(6, 1, 3, 3), "b": floats(6)},
    ),
    "conv_line": Case(
        "%x: float32[1,8,W]", "%y = Conv(%x, %w, %b) {dilations=[2], pads=[2,2]}",
        {"w": floats(4, 8, 3), "b": floats(4)},
    ),
    "conv_auto_pad": Case(
        X8, '%y = Conv(%x, %w) {auto_pad="SAME_UPPER", strides=[2,2]}', {"w": floats(4, 8, 3, 3)}
    ),
    "conv_chain": Case(
        X8, "%a = Conv(%x, %w)\n%r = Relu(%a)\n%b = Conv(%r, %v)\n%y = Add(%b, %x)",
        {"w": floats(6, 8, 1, 1), "v": floats(8, 6, 1, 1)},
    ),
    "matmul": Case("%x: float32[N,3,7]", "%y = MatMul(%x, %w)", {"w": floats(7, 10)}),
    "matmul_transposed": Case(
        "%x: float32[3,7]", "%t = Transpose(%w) {perm=[1,0]}\n%y = MatMul(%x, %t)",
        {"w": floats(10, 7)},
    ),
    "matmul_tied": Case(
        "%i: int64[2,3]",
        "%x = Gather(%w, %i)\n%t = Transpose(%w) {perm=[1,0]}\n%y = MatMul(%x, %t)",
        {"w": floats(10, 7)}, {"i": np.array([[0, 9, -1], [-10, 4, 7]])},
    ),
    "gemm_tied_by_half": Case(
        "%i: int64[5]",
        "%x = Gather(%w, %i)\n%t = Transpose(%w) {perm=[1,0]}\n%y = Gemm(%x, %t) {alpha=0.5}",
        {"w": floats(10, 7)}, {"i": np.array([0, 9, -1, 4, 7])},
    ),
    "gemm_tied_and_turned": Case(
        "%i: int64[5]",
        "%x = Gather(%w, %i)\n%t = Transpose(%w) {perm=[1,0]}\n%y = Gemm(%x, %t) {transB=1}",
        {"w": floats(7, 7)}, {"i": np.array([0, 6, -1, 4, 2])},
    ),
    "gemm": Case(
        "%x: float32[5,7]", "%y = Gemm(%x, %w, %b) {alpha=0.5, beta=2.0, transB=1}",
        {"w": floats(10, 7), "b": floats(10)},
    ),
    "gemm_scalar_bias": Case(
        "%x: float32[5,7]", "%y = Gemm(%x, %w, %b)", {"w": floats(7, 3), "b": floats(1)}
    ),
}  # fmt: skip

STORED = {
    "conv_dequantized": Case(
        X8, "%f = DequantizeLinear(%w, %s, %z) {axis=0}\n%y = Conv(%x, %f, %b)",
        {"w": signed(6, 8, 2, 2), "s": scales(6), "z": np.zeros(6, np.int8), "b": floats(6)},
    ),
    "conv_dequantized_depthwise": Case(
        X8, "%f = DequantizeLinear(%w, %s)\n%y = Conv(%x, %f) {group=8}",
        {"w": signed(8, 1, 3, 3), "s": scales()},
    ),
    "conv_converted": Case(
        X8, "%c = Cast(%w) {to=1}\n%f = Mul(%c, %s)\n%y = Conv(%x, %f)",
        {"w": signed(4, 8, 2, 2), "s": scales(4, 1, 1, 1)},
    ),
    "conv_of_half": Case(
        X8, "%f = Cast(%w) {to=1}\n%y = Conv(%x, %f)", {"w": floats(4, 8, 2, 2).astype(np.float16)}
    ),
    "conv_of_bfloat16": Case(
        X8, "%f = Cast(%w) {to=1}\n%y = Conv(%x, %f)",
        {"w": floats(4, 8, 2, 2).astype(to_numpy_dtype("bfloat16"))},
    ),
    "matmul_dequantized": Case(
        "%x: float32[3,7]", "%f = DequantizeLinear(%w, %s) {axis=1}\n%y = MatMul(%x, %f)",
        {"w": signed(7, 10), "s": scales(10)},
    ),
    "matmul_converted": Case(
        "%x: float32[3,7]", "%c = Cast(%w) {to=1}\n%f = Mul(%s, %c)\n%y = MatMul(%x, %f)",
        {"w": signed(7, 10), "s": scales(10)},
    ),
    "gemm_dequantized": Case(
        "%x: float32[3,7]",
        "%f = DequantizeLinear(%w, %s) {axis=0}\n%y = Gemm(%x, %f, %b) {alpha=0.5, transB=1}",
        {"w": signed(10, 7), "s": scales(10), "b": floats(10)},
    ),
}  # fmt: skip

STEPS = {
    "sx": scalar(0.043), "zx": scalar(121, np.uint8), "sw": scalar(0.017),
    "zw": scalar(0, np.int8), "sy": scalar(1.7), "zy": scalar(97, np.uint8),
}  # fmt: skip
QLINEAR_CONV = "%y = QLinearConv(%x, %sx, %zx, %w, %sw, %zw, %sy, %zy"
INT_BIAS = (np.arange(8) * 977 - 3000).astype(np.int32)

INTEGER = {
    "qlinear_conv": Case(
        U8, f"{QLINEAR_CONV}, %b) {{pads=[1,0,0,1]}}",
        {**STEPS, "w": signed(8, 8, 2, 2), "b": INT_BIAS},
    ),
    "qlinear_conv_channels": Case(
        "%x: uint8[1,3,6,6]", f"{QLINEAR_CONV}) {{strides=[2,2], pads=[1,1,1,1]}}",
        {**STEPS, "w": signed(6, 3, 3, 3), "sw": scales(6), "zw": np.zeros(6, np.int8)},
    ),
    "qlinear_conv_depthwise": Case(
        U8, f"{QLINEAR_CONV}, %b) {{group=8, pads=[1,1,1,1]}}",
        {**STEPS, "w": signed(8, 1, 3, 3), "b": INT_BIAS, "sy": scalar(0.3)},
    ),
    "qlinear_conv_unsigned_weights": Case(
        U8, f"{QLINEAR_CONV}) {{group=2}}",
        {**STEPS, "w": signed(8, 4, 2, 2).view(np.uint8), "zw": scalar(128, np.uint8)},
    ),
    "conv_integer": Case(
        U8, "%y = ConvInteger(%x, %w, %zx) {pads=[1,1,1,1]}",
        {"w": signed(6, 8, 2, 2), "zx": STEPS["zx"]},
    ),
    "qlinear_matmul": Case(
        "%x: uint8[2,3,7]", "%y = QLinearMatMul(%x, %sx, %zx, %w, %sw, %zw, %sy, %zy)",
        {**STEPS, "w": signed(7, 10), "sw": scales(10), "zw": np.zeros(10, np.int8)},
    ),
    "qgemm": Case(
        "%x: uint8[3,7]",
        "%y = com.microsoft.QGemm(%x, %sx, %zx, %w, %sw, %zw, %b, %sy, %zy) {alpha=0.5, transB=1}",
        {**STEPS, "w": signed(8, 7), "b": INT_BIAS},
    ),
    "qgemm_float": Case(
        "%x: uint8[3,7]",
        "%y = com.microsoft.QGemm(%x, %sx, %zx, %w, %sw, %zw, %b)",
        {**STEPS, "w": signed(7, 8), "b": INT_BIAS, "sw": scales(8), "zw": np.zeros(8, np.int8)},
    ),
    "matmul_integer": Case(
        "%x: uint8[N,7]", "%y = MatMulInteger(%x, %w, %zx)",
        {"w": signed(7, 10), "zx": STEPS["zx"]},
    ),
    "matmul_integer_dynamic": Case(
        "%x: uint8[3,7], %z: uint8[]", "%y = MatMulInteger(%x, %w, %z)", {"w": signed(7, 10)}
    ),
}  # fmt: skip

CONV = "%c = Conv(%x, %w)\n"
CONV_6 = {"w": floats(6, 8, 1, 1)}
CONV_8 = {"w": floats(8, 8, 1, 1)}

AROUND = {
    "pool_max": Case(
        X8, CONV + "%y = MaxPool(%c) {kernel_shape=[3,2], strides=[2,2], pads=[1,0,1,0]}", CONV_6
    ),
    "pool_average": Case(
        X8, CONV + "%y = AveragePool(%c) {kernel_shape=[2,2], strides=[2,2], pads=[1,1,0,0], "
        "ceil_mode=1, count_include_pad=1}", CONV_8,
    ),
    "pool_global": Case(
        X8, CONV + "%g = GlobalAveragePool(%c)\n%m = GlobalMaxPool(%c)\n%y = Add(%g, %m)", CONV_6
    ),
    "pool_mean": Case(
        X8, CONV + "%y = ReduceMean(%c, %axes) {keepdims=0}",
        {**CONV_6, "axes": np.array([-1, 2])},
    ),
    "pool_flatten": Case(
        X8, CONV + "%g = GlobalAveragePool(%c)\n%y = kiln.Reshape(%g) {shape=[2,8]}", CONV_8
    ),
    "concat": Case(
        X8, CONV + "%r = Relu(%c)\n%y = Concat(%c, %r) {axis=1}", CONV_8
    ),
    "pointwise_constants": Case(
        X8, CONV + "%s = Mul(%c, %half)\n%t = Add(%s, %row)\n%u = PRelu(%t, %slope)\n"
        "%y = Clip(%u, %low, %high)",
        {**CONV_6, "half": scalar(0.5), "row": floats(6, 1, 1), "slope": floats(1, 6, 1, 1),
         "low": scalar(-2), "high": scalar(3)},
    ),
    "pointwise_gate": Case(
        X8, CONV + "%g = GlobalAveragePool(%c)\n%s = Sigmoid(%g)\n%y = Mul(%c, %s)", CONV_6
    ),
    "pointwise_outside": Case(
        f"{X8}, %z: float32[2,6,5,6]", CONV + "%y = Sub(%z, %c)", CONV_6
    ),
}  # fmt: skip

TWO = "%c = Conv(%x, %w)\n%d = Conv(%x, %v)\n"
TWO_6 = {"w": floats(6, 8, 1, 1), "v": floats(6, 8, 1, 1)}

MOVED = {
    "concat_ragged": Case(X8, TWO + "%y = Concat(%d, %c, %d) {axis=1}", TWO_6),
    "slice_channels": Case(
        X8, CONV + "%y = kiln.Slice(%c) {shape=[2,3,5,6], starts=[0,1,0,0], steps=[1,2,1,1]}",
        CONV_6,
    ),
    "slice_image": Case(
        X8, CONV + "%y = kiln.Slice(%c) {shape=[2,6,2,3], starts=[0,0,4,1], steps=[1,1,-2,2]}",
        CONV_6,
    ),
    "shuffle": Case(
        X8, TWO + "%j = Concat(%c, %d) {axis=1}\n"
        "%g = kiln.Reshape(%j) {shape=[2,2,6,5,6]}\n%t = Transpose(%g) {perm=[0,2,1,3,4]}\n"
        "%s = kiln.Reshape(%t) {shape=[2,12,5,6]}\n"
        "%y = kiln.Slice(%s) {shape=[2,5,5,6], starts=[0,7,0,0], steps=[1,1,1,1]}", TWO_6,
    ),
    "resize_scales": Case(
        X8, CONV + '%y = Resize(%c, _, %k) {mode="nearest"}',
        {**CONV_6, "k": np.array([1, 1, 2, 1.5], np.float32)},
    ),
    "resize_sizes": Case(
        X8, CONV + '%y = Resize(%c, _, _, %k) {mode="linear", axes=[3, 2]}',
        {**CONV_6, "k": np.array([9, 7])},
    ),
    "transposed_blocks": Case(
        X8, "%y = ConvTranspose(%x, %w, %b) {strides=[2,3]}",
        {"w": floats(8, 6, 2, 3), "b": floats(6)},
    ),
    "transposed_few_filters": Case(
        X8, "%y = ConvTranspose(%x, %w) {strides=[2,2]}", {"w": floats(8, 3, 2, 2)}
    ),
}  # fmt: skip

PLAIN = {
    "plain_transposed_overlap": Case(
        X8, "%y = ConvTranspose(%x, %w) {strides=[1,2]}", {"w": floats(8, 4, 2, 2)}
    ),
    "plain_one_filter": Case(X8, "%y = Conv(%x, %w)", {"w": floats(1, 8, 3, 3)}),
    "plain_four_dims": Case(
        "%x: float32[1,4,2,2,2,2]", "%y = Conv(%x, %w)", {"w": floats(4, 4, 1, 1, 1, 1)}
    ),
    "plain_groups": Case(X6, "%y = Conv(%x, %w) {group=2}", {"w": floats(4, 3, 1, 1)}),
    "plain_weights": Case(f"{X8}, %w: float32[4,8,1,1]", "%y = Conv(%x, %w)"),
    "plain_bias": Case(
        f"{X8}, %b: float32[4]", "%y = Conv(%x, %w, %b)", {"w": floats(4, 8, 1, 1)}
    ),
    "plain_double": Case(
        "%x: float64[1,8,2,2]", "%y = Conv(%x, %w)", {"w": floats(4, 8, 1, 1).astype(np.float64)}
    ),
    "plain_gemm": Case("%x: float32[7,5]", "%y = Gemm(%x, %w) {transA=1}", {"w": floats(7, 3)}),
    "plain_gemm_rows": Case(
        "%x: float32[5,7]", "%y = Gemm(%x, %w, %b)", {"w": floats(7, 5), "b": floats(5, 1)}
    ),
    "plain_batch": Case("%x: float32[2,3,7]", "%y = MatMul(%x, %w)", {"w": floats(2, 7, 3)}),
    "plain_zero_points": Case(
        U8, QLINEAR_CONV + ")", {**STEPS, "w": signed(4, 8, 1, 1), "zw": scalar(3, np.int8)}
    ),
    "plain_signed_data": Case(
        "%x: int8[2,7]", "%y = MatMulInteger(%x, %w)", {"w": signed(7, 3)}
    ),
    "plain_row_scales": Case(
        "%x: float32[3,7]", "%f = DequantizeLinear(%w, %s) {axis=0}\n%y = MatMul(%x, %f)",
        {"w": signed(7, 10), "s": scales(7)},
    ),
    "plain_pool": Case(X8, "%y = MaxPool(%x) {kernel_shape=[2,2]}"),
}  # fmt: skip

V8 = "%x: float32[1,8,3,4,5]"
VOLUME_8 = {"w": floats(8, 8, 2, 1, 2)}

VOLUMES = {
    "volume_few_channels": Case(
        "%x: float32[N,3,4,5,5]", "%y = Conv(%x, %w, %b) {strides=[1,2,2], pads=[1,0,0,1,1,1]}",
        {"w": floats(8, 3, 3, 2, 2), "b": floats(8)},
    ),
    "volume_chain": Case(
        V8, "%c = Conv(%x, %w) {pads=[1,0,0,0,0,1]}\n%n = Mul(%c, %row)\n%r = Relu(%n)\n"
        "%s = Add(%r, %x)\n%m = MaxPool(%s) {kernel_shape=[2,2,2], strides=[1,2,2]}\n"
        "%d = Conv(%m, %v, %b) {group=8}\n%y = GlobalAveragePool(%d)",
        {**VOLUME_8, "row": floats(8, 1, 1, 1), "v": floats(8, 1, 2, 1, 1), "b": floats(8)},
    ),
    "volume_moved": Case(
        V8, "%c = Conv(%x, %w)\n%a = AveragePool(%c) {kernel_shape=[1,3,3], pads=[0,1,1,0,1,1]}\n"
        "%j = Concat(%c, %a) {axis=1}\n"
        "%s = kiln.Slice(%j) {shape=[1,5,1,4,4], starts=[0,6,0,0,0], steps=[1,1,1,1,1]}\n"
        '%y = Resize(%s, _, %k) {mode="nearest"}',
        {"w": floats(8, 8, 3, 1, 2), "k": np.array([1, 1, 3, 2, 1], np.float32)},
    ),
    "volume_integer": Case(
        "%x: uint8[1,6,3,4,4]", f"{QLINEAR_CONV}) {{pads=[1,0,1,0,1,0]}}",
        {**STEPS, "w": signed(8, 6, 2, 2, 2)},
    ),
}  # fmt: skip

QDQ_STEPS = {**STEPS, "sy": scalar(0.9), "sm": np.array([0.0007], np.float32)}
SECOND = "%z2 = QLinearConv(%q, %sy, %zy, %v, %sw, %zw, %s2, %zx)\n"
BETWEEN = "%a = QLinearConv(%x, %sx, %zx, %w, %sw, %zw, %sy, %zy)\n"
BETWEEN += "%f = DequantizeLinear(%a, %sy, %zy)\n"
WEIGHTS_QDQ = {"w": signed(6, 8, 1, 1), "v": signed(8, 6, 1, 1), "s2": scalar(2.5)}

QDQ = {
    "qdq_activation": Case(
        U8, "%i = ConvInteger(%x, %w, %zx)\n%e = Cast(%i) {to=1}\n%m = Mul(%e, %sm)\n"
        "%l = LeakyRelu(%m) {alpha=0.1}\n%q = QuantizeLinear(%l, %sy, %zy)\n"
        + SECOND + "%y = DequantizeLinear(%z2, %s2, %zx)",
        {**QDQ_STEPS, **WEIGHTS_QDQ},
    ),
    "qdq_bounds": Case(
        U8, BETWEEN + "%q = Clip(%a, %zy)\n" + SECOND + "%y = Clip(%z2, _, %zx)",
        {**QDQ_STEPS, **WEIGHTS_QDQ},
    ),
    "qdq_pool": Case(
        U8, BETWEEN + "%p = AveragePool(%f) {kernel_shape=[2,2]}\n"
        "%q = QuantizeLinear(%p, %sy, %zy)\n" + SECOND + "%y = Identity(%z2)",
        {**QDQ_STEPS, **WEIGHTS_QDQ, "sy": np.array([0.9], np.float32)},
    ),
    "qdq_squeeze": Case(
        U8, BETWEEN + "%g = GlobalAveragePool(%f)\n%h = QuantizeLinear(%g, %sx, %zx)\n"
        "%d = DequantizeLinear(%h, %sx, %zx)\n%s = Sigmoid(%d)\n%m = Mul(%f, %s)\n"
        "%q = QuantizeLinear(%m, %sy, %zy)\n" + SECOND + "%y = Identity(%z2)",
        {**QDQ_STEPS, **WEIGHTS_QDQ},
    ),
    "qdq_residual": Case(
        U8, "%d = DequantizeLinear(%x, %sx, %zx)\n%i = ConvInteger(%x, %w, %zx)\n"
        "%e = Cast(%i) {to=1}\n%m = Mul(%e, %sm)\n%s = Add(%m, %d)\n"
        "%y = QuantizeLinear(%s, %sy, %zy)",
        {**QDQ_STEPS, "w": signed(8, 8, 1, 1)},
    ),
    "qdq_resize": Case(
        U8, BETWEEN + '%r = Resize(%f, _, %k) {mode="linear"}\n'
        "%q = QuantizeLinear(%r, %sy, %zy)\n%n = Resize(%q, _, %k)\n"
        "%j = Concat(%n, %n) {axis=1}\n%y = Identity(%j)",
        {**QDQ_STEPS, "w": signed(8, 8, 1, 1), "k": np.array([1, 1, 2, 1], np.float32)},
    ),
}  # fmt: skip

PLAIN.update(LEFT_LAYERS)
PLAIN.update({
    "plain_product": Case("%x: float32[3,7], %w: float32[7,5]", "%y = MatMul(%x, %w)"),
    "plain_flatten": Case("%x: float32[2,8,1,1]", "%y = kiln.Reshape(%x) {shape=[2,8]}"),
    "plain_element_scales": Case(
        "%x: float32[3,7]", "%c = Cast(%w) {to=1}\n%f = Mul(%c, %s)\n%y = MatMul(%x, %f)",
        {"w": signed(7, 10), "s": scales(7, 10)},
    ),
})  # fmt: skip

AROUND.update({
    "pool_mean_keeping": Case(
        X8, CONV + "%y = ReduceMean(%c, %axes)", {**CONV_6, "axes": np.array([3, 2])}
    ),
    "pool_mean_whole": Case(
        X8, CONV + "%y = ReduceMean(%c, %axes) {keepdims=0}", {**CONV_8, "axes": np.array([2, 3])}
    ),
})  # fmt: skip

CONVERTED = {**RECURRENT, **FLOAT, **STORED, **INTEGER, **AROUND, **MOVED, **VOLUMES, **QDQ}
ALL = {**CONVERTED, **PLAIN}


@pytest.mark.parametrize("name", CONVERTED)
def test_golden(golden: Golden, name: str) -> None:
    case = CONVERTED[name]
    result = check(
        golden, f"layout_{name}", case.text(), "layout,dce", feeds=case.feeds(),
        constants=case.by_hash, context=toy_context(),
    )  # fmt: skip
    assert result.records[0].changes


@pytest.mark.parametrize("name", PLAIN)
def test_what_stays(name: str) -> None:
    graph = PLAIN[name].graph()
    before = [n.key for n in graph.topological()]
    assert not run(graph, "layout", toy_context()).records[0].changes
    assert [n.key for n in graph.topological()] == before


@pytest.mark.parametrize("cpu", ["cascadelake", "x86-64-v3", "x86-64-v2", "aarch64-dotprod"])
@pytest.mark.parametrize("name", ALL)
def test_same_numbers_on_every_cpu(name: str, cpu: str) -> None:
    case = ALL[name]
    graph, feeds = case.graph(), case.feeds()
    expected = evaluate(graph, feeds)
    run(graph, "signedness,layout,dce", cpu_context(cpu))
    same(evaluate(graph, feeds), expected)


def equivalent(case: Case, feeds: dict[str, Any] | None = None, cpu: str = "") -> Graph:
    """The graph after the pass, which computes what it did before."""
    graph, given = case.graph(), feeds or case.feeds()
    expected = evaluate(graph, given)
    run(graph, "layout,dce", cpu_context(cpu) if cpu else toy_context())
    same(evaluate(graph, given), expected)
    return graph


@pytest.mark.parametrize("group, weight", [(1, floats(4, 8, 3, 3)), (8, floats(8, 1, 3, 3))])
def test_windows_that_leave_out_a_border_stay(group: int, weight: Array) -> None:
    """The reference does not take negative pads either."""
    lines = f"%y = Conv(%x, %w) {{group={group}, pads=[1,-2,1,1]}}"
    graph = Case(X8, lines, {"w": weight}).graph()
    assert not run(graph, "layout", toy_context()).records[0].changes


def count(graph: Graph, key: str) -> int:
    return sum(n.key == key for n in graph.nodes)


def test_weights_shared_by_convolutions_of_different_groups() -> None:
    case = Case(
        "%x: float32[1,4,3,3], %z: float32[1,8,3,3]",
        "%a = Conv(%x, %w)\n%b = Conv(%z, %w) {group=2}\n%y = Add(%a, %b)",
        {"w": floats(16, 4, 1, 1)},
    )
    graph = equivalent(case)
    weights = [n for n in graph.nodes if n.key == "kiln.ConvBlocked"]
    assert sorted(v.shape[:2] for n in weights if (v := graph.input(n, 1))) == [(1, 2), (2, 1)]


class _TilesByRows(ToyLayouts):
    """Two blocks a tile for a product of one row, else one."""

    def estimate(self, shape: KernelShape) -> Choice:
        return Choice(8 if isinstance(shape, ProductShape) and shape.rows == 1 else 4)


def test_products_of_other_sizes_have_other_tiles_of_the_same_weights() -> None:
    case = Case(
        "%x: float32[1,7], %z: float32[5,7]",
        "%a = MatMul(%x, %w)\n%b = MatMul(%z, %w)\n%y = Add(%a, %b)", {"w": floats(7, 8)},
    )  # fmt: skip
    graph = case.graph()
    run(graph, "layout,dce", PassContext(CpuHardware.of(_TilesByRows(TOY))))
    packed = [graph.required_inputs(n)[1] for n in graph.nodes if n.key == "kiln.MatMulPacked"]
    assert sorted(int(v.shape[-1]) for v in packed) == [4, 8]


def test_scales_belong_to_their_weights() -> None:
    lines = "%f = DequantizeLinear(%w, %s) {axis=0}\n%g = DequantizeLinear(%w, %t) {axis=0}\n"
    lines += "%a = Conv(%x, %f)\n%b = Conv(%x, %g)\n%y = Sub(%a, %b)"
    constants = {"w": signed(8, 8, 1, 1), "s": scales(8), "t": scales(8)[::-1].copy()}
    assert count(equivalent(Case(X8, lines, constants)), "kiln.ConvBlocked") == 2


def test_resizes_may_read_one_constant_for_other_axes() -> None:
    cut = "{starts=[0,0,0,0], steps=[1,1,1,1], shape=[2,6,5,6]}"
    lines = CONV + "%a = Resize(%c, _, %k) {axes=[1, 2, 3]}\n"
    lines += f"%b = Resize(%c, _, %k) {{axes=[2, 3, 1]}}\n%p = kiln.Slice(%a) {cut}\n"
    lines += f"%q = kiln.Slice(%b) {cut}\n%y = Sub(%p, %q)"
    graph = equivalent(Case(X8, lines, {**CONV_6, "k": np.array([1, 2, 1], np.float32)}))
    assert count(graph, "Resize") == 2 and count(graph, "kiln.UnpackChannels") == 1


def test_factors_of_products_belong_to_them_where_a_scale_is_0() -> None:
    lines = "%f = DequantizeLinear(%w, %s) {axis=1}\n%a = Gemm(%x, %f)\n"
    lines += "%b = Gemm(%x, %f) {alpha=0.5}\n%y = Sub(%a, %b)"
    steps = np.array([0, 0.25, 0.5], np.float32)
    equivalent(Case("%x: float32[5,7]", lines, {"w": signed(7, 3), "s": steps}))


@pytest.mark.parametrize(("exponent", "folded"), [(-125, True), (-126, False)])
def test_factors_are_part_of_weights_that_stay_normal(exponent: int, folded: bool) -> None:
    """The least normal number is 2 to the power of -126."""
    case = Case(
        "%x: float32[5,7]",
        "%y = Gemm(%x, %w) {alpha=0.5}",
        {"w": np.full((7, 3), 2.0**exponent, np.float32)},
    )
    assert (count(equivalent(case), "Mul") == 0) is folded


@pytest.mark.parametrize(("parts", "selected"), [(16, True), (17, False)])
def test_channels_are_selected_from_a_limited_number_of_values(
    parts: int, selected: bool
) -> None:  # fmt: skip
    convolutions = "".join(f"%c{i} = Conv(%x, %w{i})\n" for i in range(parts))
    names = ", ".join(f"%c{i}" for i in range(parts))
    case = Case(
        X8,
        f"{convolutions}%y = Concat({names}) {{axis=1}}",
        {f"w{i}": floats(3, 8, 1, 1) * (i + 1) for i in range(parts)},
    )
    assert (count(equivalent(case), "kiln.SelectChannels") == 1) is selected


def test_two_constants_under_one_key_are_a_fault_of_the_layout() -> None:
    graph = Graph("g")
    planner = Planner(PassContext().editor(graph), ToyLayouts(TOY))
    one = planner.constant(("w", "scale"), np.float32([1, np.nan]), "scale")
    assert planner.constant(("w", "scale"), np.float32([1, np.nan]), "scale") is one
    for other in (np.float32([1, 2]), np.float64([1, np.nan]), np.float32([[1, np.nan]])):
        with pytest.raises(AssertionError, match="two constants that differ"):
            planner.constant(("w", "scale"), other, "scale")


def test_equal_weights_are_packed_once() -> None:
    case = Case(
        X8, "%a = Conv(%x, %w)\n%b = Conv(%a, %w)\n%y = Add(%a, %b)", {"w": floats(8, 8, 1, 1)}
    )
    graph = equivalent(case)
    assert len({graph.input(n, 1) for n in graph.nodes if n.key == "kiln.ConvBlocked"}) == 1


def test_factors_along_the_width_of_the_kernel() -> None:
    lines = "%c = Cast(%w) {to=1}\n%f = Mul(%c, %s)\n%y = Conv(%x, %f)"
    equivalent(Case(X8, lines, {"w": signed(3, 8, 1, 3), "s": scales(3)}))


@pytest.mark.parametrize("op", ["Sqrt", "Log", "Reciprocal", "Acosh", "Exp", "Atanh"])
def test_padded_channels_stay_finite(op: str) -> None:
    """All real channels are in the op's domain; channels that only fill a block need not be."""
    outside = {"Exp": 100.0, "Atanh": 2.0}.get(op, -1.0)
    bias = {"Exp": -100.0, "Atanh": -2.0}.get(op, 3.0)
    case = Case(
        "%x: float32[1,8,2,2]",
        f"%c = Conv(%x, %w, %b)\n%s = Add(%c, %shift)\n%o = {op}(%s)\n%y = Conv(%o, %v)",
        {"w": floats(6, 8, 1, 1) * 0, "b": np.full(6, bias, np.float32), "v": floats(8, 6, 1, 1),
         "shift": scalar(outside)},
    )  # fmt: skip
    graph = equivalent(case)
    graph.set_outputs([v for n in graph.nodes for v in n.values])
    assert all(np.isfinite(a).all() for a in evaluate(graph, case.feeds()))


def test_division_by_channels_stays_plain_where_blocks_are_padded() -> None:
    lines = "%c = Conv(%x, %w)\n%d = Div(%c, %row)\n%y = Conv(%d, %v)"
    constants = {"w": floats(6, 8, 1, 1), "v": floats(8, 6, 1, 1), "row": scales(6, 1, 1)}
    assert count(equivalent(Case(X8, lines, constants)), "kiln.UnpackChannels") == 2
    constants = {"w": floats(8, 8, 1, 1), "v": floats(8, 8, 1, 1), "row": scales(8, 1, 1)}
    assert count(equivalent(Case(X8, lines, constants)), "kiln.UnpackChannels") == 1


@pytest.mark.parametrize("name", QDQ)
def test_quantisation_keeps_to_blocks(name: str) -> None:
    """At most one pack in front and one unpack at the end."""
    graph = equivalent(QDQ[name])
    assert count(graph, "kiln.PackChannels") <= 1
    assert count(graph, "kiln.UnpackChannels") <= 1


def test_quantisation_by_several_scales_leaves_the_blocks() -> None:
    lines = CONV + "%q = QuantizeLinear(%c, %s, %z) {axis=1}\n"
    lines += "%y = DequantizeLinear(%q, %s, %z) {axis=1}"
    constants = {**CONV_6, "s": scales(6), "z": np.full(6, 100, np.uint8)}
    graph = equivalent(Case(X8, lines, constants))
    assert graph.outputs[0].node.key == "DequantizeLinear"
    assert count(graph, "kiln.UnpackChannels") == 1


def test_bytes_that_nobody_wants_in_blocks_are_dequantised_first() -> None:
    lines = CONV + "%d = DequantizeLinear(%z, %s)\n%y = Add(%c, %d)"
    case = Case(f"{X8}, %z: uint8[2,6,5,6]", lines, {**CONV_6, "s": scalar(0.1)})
    packed = [n for n in equivalent(case).nodes if n.key == "kiln.PackChannels"]
    assert [n.out().dtype for n in packed] == ["float32", "float32"]


def test_results_with_a_scale_for_each_row_stay() -> None:
    lines = "%y = QLinearMatMul(%x, %sx, %zx, %w, %sw, %zw, %sy, %zy)"
    steps = {**STEPS, "sy": scales(3), "zy": np.full(3, 7, np.uint8), "w": signed(7, 3)}
    assert count(equivalent(Case("%x: uint8[3,7]", lines, steps)), "QLinearMatMul") == 1


def test_data_with_a_scale_for_each_row_stays() -> None:
    lines = "%y = QLinearMatMul(%x, %sx, %zx, %w, %sw, %zw, %sy, %zy)"
    steps = {**STEPS, "sx": scales(3), "zx": np.full(3, 7, np.uint8), "w": signed(7, 3)}
    assert count(equivalent(Case("%x: uint8[3,7]", lines, steps)), "QLinearMatMul") == 1


def test_run_time_zero_points_of_rows_stay() -> None:
    lines = "%y = MatMulInteger(%x, %w, %z)"
    case = Case("%x: uint8[3,7], %z: uint8[3]", lines, {"w": signed(7, 3)})
    assert count(equivalent(case), "MatMulInteger") == 1


@pytest.mark.parametrize("axes", [[2], [1, 2, 3], [0, 2, 3]])
def test_means_of_other_axes_leave_the_blocks(axes: list[int]) -> None:
    case = Case(X8, CONV + "%y = ReduceMean(%c, %axes)", {**CONV_8, "axes": np.array(axes)})
    assert count(equivalent(case), "kiln.UnpackChannels") == 1


def test_a_cut_of_an_open_number_of_channels_leaves_the_blocks() -> None:
    lines = CONV + "%y = kiln.Slice(%c) {shape=[2,<K>,5,6], starts=[0,0,0,0], steps=[1,1,1,1]}"
    case = Case(f"{X8}, %k: float32[K]", lines, CONV_8)
    assert count(equivalent(case), "kiln.UnpackChannels") == 1


def test_a_pool_whose_places_are_used_leaves_the_blocks() -> None:
    lines = CONV + "%m, %places = MaxPool(%c) {kernel_shape=[2,2]}\n%f = Cast(%places) {to=1}\n"
    graph = equivalent(Case(X8, lines + "%y = Add(%m, %f)", CONV_8))
    assert count(graph, "MaxPool") == 1 and count(graph, "kiln.UnpackChannels") == 1


@pytest.mark.parametrize(("op", "result"), [("Sum", "ReduceSum"), ("Max", "ReduceMax")])
def test_other_reductions_leave_the_blocks(op: str, result: str) -> None:
    case = Case(X8, f"{CONV}%y = Reduce{op}(%c, %axes)", {**CONV_8, "axes": np.array([2, 3])})
    graph = equivalent(case)
    assert count(graph, result) == 1 and count(graph, "kiln.UnpackChannels") == 1


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize(("keepdims", "unpacked"), [(0, 0), (1, 1)])
def test_blocks_are_reduced_to_one_number_as_they_lie(
    op: str, keepdims: int, unpacked: int
) -> None:
    lines = f"{CONV}%a = Abs(%c)\n%y = {op}(%a) {{keepdims={keepdims}}}"
    assert count(equivalent(Case(X8, lines, CONV_8)), "kiln.UnpackChannels") == unpacked


def test_padding_is_not_reduced() -> None:
    base = FLOAT["conv_ragged"]
    lines = base.lines.replace("%y =", "%z =") + "\n%y = ReduceSumSquare(%z) {keepdims=0}"
    graph = equivalent(Case(base.params, lines, base.constants))
    assert count(graph, "kiln.UnpackChannels") == 1


@pytest.mark.parametrize(("case", "unpacked"), [("conv_dense", 0), ("conv_ragged", 1)])
def test_observers_read_blocks_without_padding(case: str, unpacked: int) -> None:
    """Channels of padding must not be counted."""
    base = FLOAT[case]
    seen = "\n%counts, %low, %y = kiln.Observe(%z, %yes)"
    constants = {**base.constants, "yes": np.array(True)}
    graph = equivalent(Case(base.params, base.lines.replace("%y =", "%z =") + seen, constants))
    assert count(graph, "kiln.UnpackChannels") == unpacked


@pytest.mark.parametrize(
    ("attrs", "kept"),
    [
        ("strides=[2,3]", False),
        ("strides=[2,3], dilations=[1,1], pads=[0,0,0,0]", False),
        ("strides=[2,3], pads=[0,1,0,0]", True),
        ("strides=[2,3], output_padding=[1,0]", True),
        ("", True),
        ("strides=[3,3]", True),
        ("strides=[2,3], dilations=[2,1]", True),
    ],
)
def test_transposed_windows_that_do_not_lie_apart_stay(attrs: str, kept: bool) -> None:
    case = Case(X8, f"%y = ConvTranspose(%x, %w) {{{attrs}}}", {"w": floats(8, 6, 2, 3)})
    assert (count(equivalent(case), "ConvTranspose") == 1) is kept


def test_weights_that_are_turned_by_default_are_packed() -> None:
    """Without ``perm`` a Transpose turns the axes around."""
    case = Case("%x: float32[3,7]", "%t = Transpose(%w)\n%y = MatMul(%x, %t)", {"w": floats(10, 7)})
    assert count(equivalent(case), "kiln.MatMulPacked") == 1


def test_a_transposed_window_of_one_pixel_has_no_strides() -> None:
    case = Case(X8, "%y = ConvTranspose(%x, %w)", {"w": floats(8, 6, 1, 1)})
    assert count(equivalent(case), "ConvTranspose") == 0


TRANSPOSED_QDQ = """%f = DequantizeLinear(%x, %sx{zero})
%v = DequantizeLinear(%w, %sv) {{axis={axis}}}
%y = ConvTranspose(%f, %v{bias}) {{strides=[2,2]}}"""


def transposed_bytes(
    params: str, filters: int, scale: Array, axis: int = 1, zero: str = ", %zx", bias: str = ""
) -> list[int]:
    """The depths of the products that a quantised transposed convolution becomes."""
    constants = {
        **STEPS, "w": signed(8, filters, 2, 2), "sv": scale, "b": floats(filters),
        "zi": scalar(-3, np.int8),
    }  # fmt: skip
    lines = TRANSPOSED_QDQ.format(zero=zero, axis=axis, bias=bias)
    graph = equivalent(Case(params, lines, constants))
    assert count(graph, "ConvTranspose") == 0
    blocked = [n for n in graph.nodes if n.key == "kiln.ConvBlocked"]
    return [int(n.attrs.get("depth", 1)) for n in blocked]  # type: ignore[call-overload]


@pytest.mark.parametrize("zero", ["", ", %zx"])
@pytest.mark.parametrize("bias", ["", ", %b"])
@pytest.mark.parametrize("filters, scale", [(6, scales(6)), (3, scales(3)), (8, scalar(0.02))])
def test_transposed_convolutions_of_bytes_sum_integers(
    filters: int, scale: Array, bias: str, zero: str
) -> None:
    assert transposed_bytes(U8, filters, scale, zero=zero, bias=bias) == [4]


def test_transposed_convolutions_of_data_with_other_scales_may_share_weights() -> None:
    lines = "%f = DequantizeLinear(%x, %sx)\n%g = DequantizeLinear(%x, %sy)\n"
    lines += "%v = DequantizeLinear(%w, %sv) {axis=1}\n%a = ConvTranspose(%f, %v) {strides=[2,2]}\n"
    lines += "%b = ConvTranspose(%g, %v) {strides=[2,2]}\n%y = Sub(%a, %b)"
    graph = equivalent(Case(U8, lines, {**STEPS, "w": signed(8, 6, 2, 2), "sv": scales(6)}))
    assert count(graph, "kiln.ConvBlocked") == 2


def test_transposed_convolutions_of_other_bytes_sum_floats() -> None:
    """Dot products of this target take uint8; scales of inputs are part of the sums."""
    assert transposed_bytes("%x: int8[1,8,5,5]", 6, scales(6), zero=", %zi") == [1]
    assert transposed_bytes(U8, 6, scales(8), axis=0) == [1]


def test_transposed_windows_of_groups_stay() -> None:
    lines = "%y = ConvTranspose(%x, %w) {strides=[2,3], group=2}"
    assert count(equivalent(Case(X8, lines, {"w": floats(8, 6, 2, 3)})), "ConvTranspose") == 1


@pytest.mark.parametrize("group, filters, kept", [(2, 16, False), (4, 16, True), (2, 12, True)])
def test_groups_that_do_not_fall_on_blocks_stay(group: int, filters: int, kept: bool) -> None:
    """Blocks of four: 8 channels in 4 groups have 2 each, 12 filters in 2 groups 6 each."""
    case = Case(
        X8, f"%y = Conv(%x, %w) {{group={group}}}", {"w": floats(filters, 8 // group, 1, 1)}
    )
    assert (count(equivalent(case), "Conv") == 1) is kept


def test_a_flattened_image_has_no_layout() -> None:
    graph = equivalent(AROUND["pool_flatten"])
    (result,) = graph.outputs
    assert isinstance(result.type, TensorType) and not result.type.layout
