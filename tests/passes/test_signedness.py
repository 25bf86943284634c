"""8-bit activations change their sign bit where that is free, and the numbers stay."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from support.graph_text import constant_lines, graph_of
from support.pass_checks import Golden, check, random_feeds, run, same
from support.toy_layouts import cpu_context, toy_context

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.passes.base import PassContext

WEIGHTS = (np.arange(16) * 37 % 200 - 100).astype(np.int8)
CONSTANTS, ARRAYS = constant_lines({
    "w": WEIGHTS.reshape(4, 4, 1, 1),
    "g": WEIGHTS.reshape(4, 4),
    "sx": np.array(0.031, np.float32),
    "sw": np.array(0.017, np.float32),
    "sy": np.array(0.09, np.float32),
    "zx": np.array(-9, np.int8),
    "zw": np.array(0, np.int8),
    "zy": np.array(21, np.int8),
    "low": np.array(-9, np.int8),
    "high": np.array(40, np.int8),
    "up": np.array([1, 1, 2, 1], np.float32),
    "table": (np.arange(48) * 5 - 120).astype(np.int8).reshape(3, 4, 2, 2),
    "k": (np.arange(4) - 2).astype(np.int8).reshape(1, 4, 1, 1),
})  # fmt: skip
X = "%x: float32[1,4,4,4]"
QUANTIZE = "%q = QuantizeLinear(%x, %sx, %zx)\n"
CONV = "%{} = QLinearConv(%{}, %sx, %zx, %w, %sw, %zw, %sy, %zy)\n"
RESULT = "%y = DequantizeLinear(%{}, %sy, %zy)\n"


def text(lines: str, params: str = X, result: str = "%y") -> str:
    names = ", ".join(f"o{i}" for i, _ in enumerate(result.split(",")))
    return f"graph main({params}) -> ({names}) {{\n{CONSTANTS}\n{lines}\nreturn {result}\n}}"


def conv(result: str, data: str) -> str:
    return CONV.format(result, data)


def flipped(lines: str, params: str = X, result: str = "%y", context: PassContext | None = None,
            feeds: dict[str, Any] | None = None) -> tuple[int, Graph]:  # fmt: skip
    """How many values the pass changes, and the graph; the numbers must stay."""
    graph = graph_of(text(lines, params, result), ARRAYS)
    given = feeds or random_feeds(graph)
    expected = evaluate(graph, given)
    records = run(graph, "signedness,dce", context or toy_context()).records
    same(evaluate(graph, given), expected)
    return records[0].details.get("flipped", 0), graph


CHAINS = {
    "pool": QUANTIZE
    + "%p = MaxPool(%q) {kernel_shape=[3,3], strides=[1,1], pads=[1,1,1,1]}\n"
    + conv("c", "p") + RESULT.format("c"),
    "residual": QUANTIZE + conv("a", "q")
    + "%s = com.microsoft.QLinearAdd(%a, %sy, %zy, %q, %sx, %zx, %sx, %zx)\n"
    + conv("c", "s") + RESULT.format("c"),
    "concat": QUANTIZE
    + "%z = QuantizeLinear(%x, %sy, %zx)\n%j = Concat(%q, %z) {axis=2}\n"
    + conv("c", "j") + RESULT.format("c"),
    "flatten": QUANTIZE
    + "%g0 = com.microsoft.QLinearGlobalAveragePool(%q, %sx, %zx, %sx, %zx) {channels_last=0}\n"
    + "%f = kiln.Reshape(%g0) {shape=[1,4]}\n"
    + "%c = QLinearMatMul(%f, %sx, %zx, %g, %sw, %zw, %sy, %zy)\n" + RESULT.format("c"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHAINS)
def test_golden(golden: Golden, name: str) -> None:
    check(golden, f"signedness_{name}", text(CHAINS[name]), "signedness,dce", constants=ARRAYS,
          context=toy_context())  # fmt: skip


def test_only_what_dot_products_read_changes() -> None:
    count, graph = flipped(QUANTIZE + conv("c", "q") + RESULT.format("c"))
    assert count == 1
    assert {v.dtype for n in graph.nodes if n.op == "QuantizeLinear" for v in n.values} == {"uint8"}
    assert {v.dtype for n in graph.nodes if n.op == "QLinearConv" for v in n.values} == {"int8"}


def test_chains_change_as_a_whole() -> None:
    lines = QUANTIZE + conv("a", "q") + "%r = com.microsoft.QLinearSigmoid(%a, %sy, %zy, %sx, %zx)"
    lines += "\n" + conv("c", "r") + RESULT.format("c")
    assert flipped(lines)[0] == 3


MOVES = {
    "transpose": "%m = Transpose(%q) {perm=[0,1,3,2]}",
    "slice": "%m = kiln.Slice(%q) {starts=[0,0,3,1], steps=[1,1,-1,1], shape=[1,4,3,2]}",
    "expand": "%p = MaxPool(%q) {kernel_shape=[4,4]}\n%m = kiln.Expand(%p) {shape=[1,4,4,4]}",
    "global maximum": "%m = GlobalMaxPool(%q)",
    "indices unused": "%m, %i = MaxPool(%q) {kernel_shape=[2,2]}",
    "bounds": "%m = Clip(%q, %low, %high)",
    "lower bound": "%m = Clip(%q, %low)",
    "upper bound": "%m = Clip(%q, _, %high)",
    "nearest": "%m = Resize(%q, _, %up)",
    "split": "%m, %n = Split(%q) {axis=2, num_outputs=2}",
}


@pytest.mark.parametrize("move", MOVES.values(), ids=MOVES)
def test_moves(move: str) -> None:
    count, graph = flipped(QUANTIZE + move + "\n" + conv("c", "m") + RESULT.format("c"))
    assert count >= 2
    assert not run(graph, "signedness", toy_context()).records[0].changes


MICROSOFT = {
    "multiplication": "QLinearMul(%q, %sx, %zx, %q, %sx, %zx, %sy, %zy)",
    "average": "QLinearAveragePool(%q, %sx, %zx, %sy, %zy) {kernel_shape=[2,2], pads=[1,0,1,0]}",
    "padded average": "QLinearAveragePool(%q, %sx, %zx, %sy, %zy) {kernel_shape=[2,2], "
    "pads=[1,0,1,0], count_include_pad=1}",
    "leaky": "QLinearLeakyRelu(%q, %sx, %zx, %sy, %zy) {alpha=0.1}",
    "sigmoid": "QLinearSigmoid(%q, %sx, %zx, %sy, %zy)",
}


@pytest.mark.parametrize("op", MICROSOFT.values(), ids=MICROSOFT)
def test_quantized_ops_between(op: str) -> None:
    lines = QUANTIZE + f"%m = com.microsoft.{op}\n" + conv("c", "m") + RESULT.format("c")
    assert flipped(lines)[0] == 2


READERS = {
    "integer convolution": "%y = ConvInteger(%q, %w, %zx)",
    "no zero point": "%y = ConvInteger(%q, %w)",
    "integer product": "%y = MatMulInteger(%q, %g, %zx)",
    "product": "%y = com.microsoft.QGemm(%f, %sx, %zx, %g, %sw, %zw)",
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_readers(reader: str) -> None:
    lines = QUANTIZE + "%f = kiln.Reshape(%q) {shape=[16,4]}\n" if "%f" in reader else QUANTIZE
    assert flipped(lines + reader)[0] == 1 + ("%f" in reader)


@pytest.mark.parametrize("form", ["(%x, %sx)", "(%x, %sx) {output_dtype=2}"])
def test_missing_zero_points_and_signed_targets(form: str) -> None:
    lines = f"%q = QuantizeLinear{form}\n%y = ConvInteger(%q, %w)"
    count, graph = flipped(lines, context=cpu_context("aarch64-dotprod"))
    assert count == 1
    (conv_node,) = (n for n in graph.nodes if n.op == "ConvInteger")
    data, zero = graph.input(conv_node, 0), graph.input(conv_node, 2)
    assert data is not None and data.dtype == "int8"
    assert zero is not None and zero.constant == -128


def test_signed_output_type_of_quantization() -> None:
    lines = "%q = QuantizeLinear(%x, %sx) {output_dtype=3}\n%y = ConvInteger(%q, %w)"
    assert flipped(lines)[0] == 1


BYTES = {"i": np.arange(-32, 32).astype(np.int8).reshape(1, 4, 4, 4)}
KEPT = {
    "graph output": (QUANTIZE + conv("c", "q") + RESULT.format("c"), X, "%y, %q"),
    "graph input": (conv("c", "i") + RESULT.format("c"), "%i: int8[1,4,4,4]", "%y"),
    "other reader": (
        QUANTIZE + conv("c", "q") + RESULT.format("c") + "%o = Cast(%q) {to=1}", X, "%y, %o"
    ),
    "comparison": (
        QUANTIZE + "%o = Equal(%q, %q)\n" + conv("c", "q") + RESULT.format("c"), X, "%y, %o"
    ),
    "run-time bound": (
        "%b = QuantizeLinear(%s, %sx, %zx)\n" + QUANTIZE + "%m = Clip(%q, %b)\n" + conv("c", "m")
        + RESULT.format("c"), X + ", %s: float32[]", "%y",
    ),
    "interpolation": (
        QUANTIZE + '%m = Resize(%q, _, %up) {mode="linear"}\n' + conv("c", "m")
        + RESULT.format("c"), X, "%y",
    ),
    "values from outside of an image": (
        QUANTIZE + "%m = Resize(%q, %roi, %up) "
        '{coordinate_transformation_mode="tf_crop_and_resize"}\n' + conv("c", "m")
        + RESULT.format("c"), X + ", %roi: float32[8]", "%y",
    ),
    "added to a constant": (
        QUANTIZE + "%s = com.microsoft.QLinearAdd(%q, %sx, %zx, %k, %sx, %zx, %sx, %zx)\n"
        + conv("c", "s") + RESULT.format("c"), X, "%y",
    ),
    "run-time zero point": (
        "%q = QuantizeLinear(%x, %sx, %z)\n%y = ConvInteger(%q, %w, %z)", X + ", %z: int8[]", "%y"
    ),
    "dynamic quantization": (
        "%d, %ds, %dz = DynamicQuantizeLinear(%x)\n%y = ConvInteger(%d, %w, %dz)", X, "%y"
    ),
    "16 bits": (
        "%z = constant int16[] 5\n%q = QuantizeLinear(%x, %sx, %z)\n%y = ConvInteger(%q, %w, %z)",
        X, "%y",
    ),
    "right operand": (
        QUANTIZE + "%y = QLinearMatMul(%q, %sx, %zx, %q, %sx, %zx, %sy, %zy)", X, "%y"
    ),
}  # fmt: skip


@pytest.mark.parametrize("lines, params, result", KEPT.values(), ids=KEPT)
@pytest.mark.parametrize("cpu", ["cascadelake", "aarch64-dotprod"])
def test_what_stays(lines: str, params: str, result: str, cpu: str) -> None:
    feeds = BYTES if params.startswith("%i") else None
    count, graph = flipped(lines, params, result, cpu_context(cpu), feeds)
    assert count == 0
    assert sorted(v.dtype for v in graph.outputs) == sorted(
        v.dtype for v in graph_of(text(lines, params, result), ARRAYS).outputs
    )


PICKED = {
    "joined with a constant": (
        QUANTIZE + "%p = MaxPool(%q) {kernel_shape=[4,4]}\n%j = Concat(%p, %k) {axis=2}\n"
        + conv("c", "j") + RESULT.format("c"), X, "%y", 3,
    ),
    "rows of a table": (
        "%r = Gather(%table, %i) {axis=0}\n" + conv("c", "r") + RESULT.format("c"),
        "%i: int64[2]", "%y", 1,
    ),
    "a table with another reader": (
        "%r = Gather(%table, %i) {axis=0}\n%o = Cast(%table) {to=1}\n" + conv("c", "r")
        + RESULT.format("c"), "%i: int64[2]", "%y, %o", 1,
    ),
}  # fmt: skip


@pytest.mark.parametrize("lines, params, result, values", PICKED.values(), ids=PICKED)
def test_constants_that_values_are_picked_from(
    lines: str, params: str, result: str, values: int
) -> None:
    feeds = {"i": np.array([2, -1])} if params.startswith("%i") else None
    count, graph = flipped(lines, params, result, cpu_context("cascadelake"), feeds)
    assert count == values
    (conv,) = (n for n in graph.topological() if n.key == "QLinearConv")
    data = graph.input(conv, 0)
    assert data is not None and data.dtype == "uint8"


BRANCHES = """%y = If(%go, %q) {
  else_branch = graph no(%q: int8[1,4,4,4]) -> (o) {
    %o = Cast(%q) {to=1}
    return %o
  },
  then_branch = graph yes(%q: int8[1,4,4,4]) -> (o) {
    %s = constant float32[] 0.5
    %o = DequantizeLinear(%q, %s)
    return %o
  }
}
"""


def test_values_read_by_a_branch_stay() -> None:
    lines = QUANTIZE + conv("c", "q") + RESULT.format("c").replace("%y", "%z") + BRANCHES
    assert flipped(lines, X + ", %go: bool[]", "%y, %z")[0] == 0


def test_targets_without_dot_products_take_any_type() -> None:
    lines = QUANTIZE + conv("c", "q") + RESULT.format("c")
    assert flipped(lines, context=cpu_context("aarch64"))[0] == 0
    assert flipped(lines, context=PassContext())[0] == 0
    assert flipped(lines, context=cpu_context("aarch64-dotprod"))[0] == 0


def test_flips_let_the_layout_pass_pack() -> None:
    graph = graph_of(text(CHAINS["pool"]), ARRAYS)
    feeds = random_feeds(graph)
    expected = evaluate(graph, feeds)
    run(graph, "signedness,layout,dce", toy_context())
    same(evaluate(graph, feeds), expected)
    assert "kiln.ConvBlocked" in {n.key for n in graph.nodes}
