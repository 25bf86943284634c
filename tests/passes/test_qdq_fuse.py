"""QDQ models in integers: at most one quantisation step away from the floating-point form."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import graph_of
from support.pass_checks import random_feeds, run, same
from support.toy_layouts import cpu_context

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.passes.base import PassContext

CONSTANTS = """
%sx = constant float32[] 0.05
%zx = constant uint8[] 128
%sw = constant float32[] 0.02
%sc = constant float32[2] [0.02, 0.04]
%sy = constant float32[] 0.5
%zy = constant uint8[] 100
%zero = constant uint8[] 0
%sb = constant float32[] 0.001
%sbc = constant float32[2] [0.001, 0.002]
%w = constant int8[2,2,1,1] [10, -20, 30, 40]
%g = constant int8[3,2] [10, -20, 30, 40, -50, 60]
%b = constant int32[2] [1000, -500]
%high = constant float32[] 200.0
%low = constant float32[] 0.0
%bias = constant float32[2] [0.5, 0.25]
%xf = DequantizeLinear(%x, %sx, %zx)
"""


def _graph(lines: str, shape: str) -> Graph:
    return graph_of(f"graph main(%x: uint8[{shape}]) -> (y) {{{CONSTANTS}{lines}\nreturn %y\n}}")


def _fused(lines: str, shape: str, pipeline: str = "qdq_fuse{always=true},dce") -> list[str]:
    graph = _graph(lines, shape)
    rng = np.random.default_rng(5)
    dims = [int(d) for d in graph.inputs[0].shape]  # type: ignore[arg-type]
    feeds = {"x": rng.integers(0, 256, dims).astype(np.uint8)}
    expected = evaluate(graph, feeds)[0]
    run(graph, pipeline)
    actual = evaluate(graph, feeds)[0]
    assert actual.dtype == expected.dtype
    assert np.abs(actual.astype(int) - expected.astype(int)).max() <= 1
    assert len(np.unique(expected)) > 2
    return [n.op for n in graph.topological()]


WEIGHTS = "%wf = DequantizeLinear(%w, %sw)\n"
CHANNELS = "%wf = DequantizeLinear(%w, %sc) {axis=0}\n"
QUANTIZE = "%y = QuantizeLinear(%f, %sy, %zy)"


@pytest.mark.parametrize(
    ("weights", "bias"),
    [
        (WEIGHTS, ""),
        (WEIGHTS, "%bf = DequantizeLinear(%b, %sb)\n"),
        (CHANNELS, "%bf = DequantizeLinear(%b, %sbc) {axis=0}\n"),
        (WEIGHTS, "%bf = Identity(%bias)\n"),
    ],
)
def test_convolutions(weights: str, bias: str) -> None:
    third = ", %bf" if bias else ""
    if "Identity" in bias:
        bias, third = "", ", %bias"
    lines = f"{weights}{bias}%f = Conv(%xf, %wf{third})\n{QUANTIZE}"
    assert _fused(lines, "1,2,3,3") == ["QLinearConv"]


def test_products() -> None:
    lines = f"%wf = DequantizeLinear(%g, %sw)\n%f = MatMul(%xf, %wf)\n{QUANTIZE}"
    assert _fused(lines, "4,3") == ["QLinearMatMul"]


ACTIVATIONS = {
    "relu": ("Relu(%r)", 100, ["Clip"]),
    "six": ("Clip(%r, %low, %six)", 100, ["Clip"]),
    "implied relu": ("Relu(%r)", 0, []),
    "implied bounds": ("Clip(%r, %low, %high)", 0, []),
    "upper bound": ("Clip(%r, %low, %six)", 0, ["Clip"]),
}
LINEAR = {
    "conv": ("Conv(%xf, %wf)", WEIGHTS, "1,2,3,3", "QLinearConv"),
    "matmul": ("MatMul(%xf, %wf)", "%wf = DequantizeLinear(%g, %sw)\n", "4,3", "QLinearMatMul"),
    "gemm": ("Gemm(%xf, %wf)", "%wf = DequantizeLinear(%g, %sw)\n", "4,3", "QGemm"),
    "add": ("Add(%xf, %wf)", "%wf = DequantizeLinear(%x, %sw, %zx)\n", "4,3", "QLinearAdd"),
}


@pytest.mark.parametrize("linear", LINEAR)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_before_quantisation(name: str, linear: str) -> None:
    activation, zero, after = ACTIVATIONS[name]
    op, weights, shape, fused = LINEAR[linear]
    given = f"%six = constant float32[] 6.0\n%zero_point = constant uint8[] {zero}\n{weights}"
    lines = f"{given}%r = {op}\n%c = {activation}\n%y = QuantizeLinear(%c, %sy, %zero_point)"
    assert _fused(lines, shape, "simplify,qdq_fuse{always=true},dce") == [fused, *after]


@pytest.mark.parametrize("alpha", [0.5, 3.0, -1.0])
@pytest.mark.parametrize(
    ("bias", "fits"),
    [
        ("%bf = DequantizeLinear(%b, %sb)\n", False),
        ("%sab = constant float32[] {product}\n%bf = DequantizeLinear(%b, %sab)\n", True),
        ("%bf = constant float32[2] [{first}, {second}]\n", True),
        ("%bf = constant float32[2] [0.0006, 0.25]\n", False),
    ],
)
def test_the_bias_of_a_gemm_with_a_factor(bias: str, fits: bool, alpha: float) -> None:
    """The sums of QGemm, its bias among them, are in steps of alpha times both scales."""
    step = alpha * float(np.float32(0.05)) * float(np.float32(0.02))
    given = bias.format(product=repr(float(np.float32(step))), first=700 * step, second=-90 * step)
    lines = f"%wf = DequantizeLinear(%g, %sw)\n{given}%f = Gemm(%xf, %wf, %bf) {{alpha={alpha}}}\n"
    assert _fused(lines + QUANTIZE, "4,3")[-1] == ("QGemm" if fits else "QuantizeLinear")


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (f"{WEIGHTS}%r = Conv(%xf, %wf)\n%f = Sigmoid(%r)\n{QUANTIZE}", "comes from Sigmoid"),
        (
            f"{WEIGHTS}%bf = DequantizeLinear(%b, %sw)\n%f = Conv(%xf, %wf, %bf)\n{QUANTIZE}",
            "the bias has another scale",
        ),
        (
            "%wf = DequantizeLinear(%w, %sc) {axis=1}\n%f = Conv(%xf, %wf)\n" + QUANTIZE,
            "not quantised by output channel",
        ),
    ],
)
def test_what_stays(lines: str, reason: str) -> None:
    graph = _graph(lines, "1,2,3,3")
    reasons: list[str] = []
    context = PassContext(explain=lambda _r, _n, why: reasons.append(why))
    run(graph, "qdq_fuse{always=true}", context)
    assert "QuantizeLinear" in {n.op for n in graph.nodes}
    assert any(reason in r for r in reasons), reasons


def test_it_only_runs_when_asked() -> None:
    graph = _graph(f"{WEIGHTS}%f = Conv(%xf, %wf)\n{QUANTIZE}", "1,2,3,3")
    feeds = random_feeds(graph)
    expected = evaluate(graph, feeds)
    from graphkiln.passes.manager import PassManager
    from graphkiln.passes.pipeline import default_pipeline

    PassManager(default_pipeline()).run(graph)
    assert np.array_equal(evaluate(graph, feeds)[0], expected[0])


# ---- exact sums whose scale comes afterwards -----------------------------------------------------


def _opened(lines: str, shape: str) -> list[str]:
    """The ops of a graph without QuantizeLinear after the pass; the numbers must stay."""
    graph = _graph(lines, shape)
    dims = [int(d) for d in graph.inputs[0].shape]  # type: ignore[arg-type]
    feeds = {"x": np.random.default_rng(5).integers(0, 256, dims).astype(np.uint8)}
    expected = evaluate(graph, feeds)
    run(graph, "qdq_fuse{always=true},dce")
    same(evaluate(graph, feeds), expected)
    return [n.op for n in graph.topological()]


SCALED = ["ConvInteger", "Cast", "Mul"]


@pytest.mark.parametrize("weights", [WEIGHTS, CHANNELS])
def test_open_convolutions(weights: str) -> None:
    assert _opened(f"{weights}%y = Conv(%xf, %wf)", "1,2,3,3") == SCALED
    padded = f"{weights}%y = Conv(%xf, %wf, %bias) {{pads=[1,0,1,2], strides=[2,1]}}"
    assert _opened(padded, "2,2,4,3") == [*SCALED, "Add"]


def test_open_convolutions_of_lines_and_groups() -> None:
    weights = "%k = constant int8[2,1,3] [10, -20, 30, 40, -50, 60]\n"
    weights += "%wf = DequantizeLinear(%k, %sc) {axis=0}\n"
    lines = f"{weights}%y = Conv(%xf, %wf, %bias) {{group=2, dilations=[2], pads=[2,1]}}"
    assert _opened(lines, "3,2,9") == [*SCALED, "Add"]


@pytest.mark.parametrize(
    "weights",
    [
        "%wf = DequantizeLinear(%g, %sw)\n",
        "%wf = DequantizeLinear(%g, %sc) {axis=1}\n",
        "%wf = DequantizeLinear(%g, %sc, %zc) {axis=-1}\n%zc = constant int8[2] [3, -4]\n",
    ],
)
def test_open_products(weights: str) -> None:
    first, _, second = weights.partition("\n")
    lines = f"{second}{first}\n%y = MatMul(%xf, %wf)"
    assert _opened(lines, "4,3") == ["MatMulInteger", "Cast", "Mul"]
    assert _opened(lines, "2,4,3") == ["MatMulInteger", "Cast", "Mul"]
    assert _opened(lines, "3") == ["MatMulInteger", "Cast", "Mul"]


def test_open_products_of_a_batch_of_weights() -> None:
    weights = "%k = constant int8[2,3,2] [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]\n"
    for scale in ("%wf = DequantizeLinear(%k, %sw)", "%wf = DequantizeLinear(%k, %sc) {axis=2}"):
        ops = _opened(f"{weights}{scale}\n%y = MatMul(%xf, %wf)", "2,4,3")
        assert ops == ["MatMulInteger", "Cast", "Mul"]


def test_unsigned_weights_with_a_zero_point() -> None:
    weights = "%k = constant uint8[2,2,1,1] [10, 120, 200, 140]\n"
    weights += "%wf = DequantizeLinear(%k, %sw, %zx)\n"
    assert _opened(f"{weights}%y = Conv(%xf, %wf)", "1,2,3,3") == SCALED


VECTOR = "%v = constant int8[2] [10, -20]\n%wf = DequantizeLinear(%v, %sc) {axis=0}\n"
OPEN_KEPT = {
    "vectors with several scales": (f"{VECTOR}%y = MatMul(%xf, %wf)", "3,2"),
    "scales of rows": (
        "%t = constant float32[3] [0.1, 0.2, 0.3]\n%wf = DequantizeLinear(%g, %t) {axis=0}\n"
        "%y = MatMul(%xf, %wf)", "4,3",
    ),
    "scales of input channels": (
        "%wf = DequantizeLinear(%w, %sc) {axis=1}\n%y = Conv(%xf, %wf)", "1,2,3,3"
    ),
    "scales of the activations' channels": (
        "%t = constant float32[3] [0.1, 0.2, 0.3]\n%z = constant uint8[3] [1, 2, 3]\n"
        "%xs = DequantizeLinear(%x, %t, %z) {axis=1}\n"
        "%v = constant int8[2,3,1,1] [1, -2, 3, 4, 5, -6]\n"
        "%wf = DequantizeLinear(%v, %sc) {axis=0}\n%y = Conv(%xs, %wf)", "1,3,3,3",
    ),
    "run-time weights": (
        "%r = QuantizeLinear(%xf, %sy, %zy)\n%wf = DequantizeLinear(%r, %sw, %zy)\n"
        "%y = MatMul(%xf, %wf)", "3,3",
    ),
    "wide weights": (
        "%wf = DequantizeLinear(%q, %sw)\n%y = MatMul(%xf, %wf)", "3,2",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lines, shape", OPEN_KEPT.values(), ids=OPEN_KEPT)
def test_what_stays_open(lines: str, shape: str) -> None:
    if "%q" in lines:
        lines = "%q = constant int16[2,2] [1000, 2000, -3000, 4000]\n" + lines
    assert not {"MatMulInteger", "ConvInteger"} & set(_opened(lines, shape))


def test_quantized_products_by_vectors_with_several_scales_stay() -> None:
    graph = _graph(f"{VECTOR}%f = MatMul(%xf, %wf)\n{QUANTIZE}", "3,2")
    run(graph, "qdq_fuse{always=true},dce")
    assert "QLinearMatMul" not in {n.op for n in graph.nodes}


GEMM = "%wf = DequantizeLinear(%g, %sw)\n"
WIDE_X = "%v = constant int16[] 7\n%xw = QuantizeLinear(%xf, %sx, %v)\n"
QUANTIZED_KEPT = {
    "a factor of the bias": (
        GEMM + "%f = Gemm(%xf, %wf, %bias) {beta=0.5}\n" + QUANTIZE, "4,3"
    ),
    "no product": (GEMM + "%f = Gemm(%xf, %wf, %bias) {alpha=0.0}\n" + QUANTIZE, "4,3"),
    "scales of rows in a Gemm": (
        "%t = constant float32[3] [0.1, 0.2, 0.3]\n%wf = DequantizeLinear(%g, %t) {axis=0}\n"
        "%f = Gemm(%xf, %wf)\n" + QUANTIZE, "4,3",
    ),
    "results with several scales": (
        WEIGHTS + "%f = Conv(%xf, %wf)\n%zc = constant uint8[2] [90, 100]\n"
        "%y = QuantizeLinear(%f, %sc, %zc) {axis=1}", "1,2,3,3",
    ),
    "wide results": (
        WEIGHTS + "%f = Conv(%xf, %wf)\n%z = constant int16[] 3\n"
        "%y = QuantizeLinear(%f, %sy, %z)", "1,2,3,3",
    ),
    "wide data": (
        WIDE_X + "%xd = DequantizeLinear(%xw, %sx, %v)\n" + WEIGHTS
        + "%f = Conv(%xd, %wf)\n" + QUANTIZE, "1,2,3,3",
    ),
    "a wide operand of a sum": (
        WIDE_X + "%xd = DequantizeLinear(%xw, %sx, %v)\n%f = Add(%xf, %xd)\n" + QUANTIZE, "4,3"
    ),
    "an operand of a sum with several scales": (
        "%zc = constant uint8[2] [3, 9]\n%xs = DequantizeLinear(%x, %sc, %zc) {axis=1}\n"
        "%f = Add(%xf, %xs)\n" + QUANTIZE, "4,2",
    ),
    "scales whose product leaves float32": (
        "%tiny = constant float32[] 1e-37\n%wf = DequantizeLinear(%w, %tiny)\n"
        "%f = Conv(%xf, %wf)\n%t = constant float32[] 1e-35\n%y = QuantizeLinear(%f, %t, %zy)",
        "1,2,3,3",
    ),
    "scales whose quotient leaves float32": (
        "%big = constant float32[] 1e+30\n%wf = DequantizeLinear(%w, %big)\n"
        "%f = Conv(%xf, %wf)\n%t = constant float32[] 1e-12\n%y = QuantizeLinear(%f, %t, %zy)",
        "1,2,3,3",
    ),
    "a bias with a zero point": (
        "%zb = constant int32[] 5\n%bf = DequantizeLinear(%b, %sb, %zb)\n"
        + WEIGHTS + "%f = Conv(%xf, %wf, %bf)\n" + QUANTIZE, "1,2,3,3",
    ),
}  # fmt: skip


@pytest.mark.parametrize("lines, shape", QUANTIZED_KEPT.values(), ids=QUANTIZED_KEPT)
def test_what_stays_quantized_floats(lines: str, shape: str) -> None:
    graph = _graph(lines, shape)
    run(graph, "qdq_fuse{always=true},dce")
    assert "QuantizeLinear" in {n.op for n in graph.nodes}


@pytest.mark.parametrize("attrs", ["pads=[1,0,2,1]", "strides=[2,1]", "dilations=[1,2]", "group=2"])
def test_convolutions_keep_their_attributes(attrs: str) -> None:
    name = "w" if "group" not in attrs else "k"
    lines = "%k = constant int8[2,1,1,1] [10, -20]\n"
    lines += f"%wf = DequantizeLinear(%{name}, %sw)\n%f = Conv(%xf, %wf) {{{attrs}}}\n{QUANTIZE}"
    assert _fused(lines, "1,2,4,5") == ["QLinearConv"]


@pytest.mark.parametrize("quantized", [True, False])
def test_scales_that_only_the_run_knows(quantized: bool) -> None:
    """They are inputs of QLinearConv; what is open needs to know them."""
    end = "%y = QuantizeLinear(%f, %sy, %zy)" if quantized else "%y = Identity(%f)"
    graph = graph_of(f"""
    graph main(%x: uint8[1,2,3,3], %run: float32[]) -> (y) {{{CONSTANTS}
      %xr = DequantizeLinear(%x, %run, %zx)
      {WEIGHTS}%f = Conv(%xr, %wf)
      {end}
      return %y
    }}""")
    x = np.random.default_rng(5).integers(0, 256, (1, 2, 3, 3)).astype(np.uint8)
    feeds = {"x": x, "run": np.array(0.05, np.float32)}
    expected = evaluate(graph, feeds)[0].astype(float)
    run(graph, "qdq_fuse{always=true},dce")
    assert ("QLinearConv" in {n.op for n in graph.nodes}) is quantized
    assert np.abs(evaluate(graph, feeds)[0].astype(float) - expected).max() <= quantized


def test_a_gemm_keeps_what_is_transposed() -> None:
    lines = f"{GEMM}%f = Gemm(%xf, %wf) {{transA=1, alpha=0.5}}\n{QUANTIZE}"
    assert _fused(lines, "3,4") == ["QGemm"]
    lines = "%wf = DequantizeLinear(%g, %t) {axis=0}\n%t = constant float32[3] [0.1, 0.2, 0.3]\n"
    first, second, _ = lines.split("\n")
    lines = f"{second}\n{first}\n%f = Gemm(%xf, %wf) {{transB=1}}\n{QUANTIZE}"
    assert _fused(lines, "4,2") == ["QGemm"]


def test_targets_without_dot_products_keep_floats() -> None:
    for name, ops in (("aarch64", {"Conv"}), ("x86-64-v3", {"ConvInteger"})):
        graph = _graph(f"{WEIGHTS}%y = Conv(%xf, %wf)", "1,2,3,3")
        run(graph, "qdq_fuse,dce", cpu_context(name))
        assert ops <= {n.op for n in graph.nodes}
