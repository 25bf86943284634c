"""Movements of dequantised tensors move bytes, and give the same bits."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import graph_of
from support.pass_checks import random_feeds, run

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate

CONSTANTS = """
%s = constant float32[] 0.05
%t = constant float32[] 0.07
%h = constant float16[] 0.05
%minus = constant float32[] -0.05
%z = constant uint8[] 100
%n = constant int8[] -3
%row = constant float32[2] [0.02, 0.04]
%zr = constant uint8[2] [7, 250]
%k = constant uint8[3,2] [1, 2, 3, 4, 5, 6]
%scales = constant float32[3] [0.02, 0.04, 0.08]
%zeros = constant uint8[3] [7, 250, 0]
%f = DequantizeLinear(%x, %s, %z)
"""


def graph(lines: str, shape: str = "1,4,6,8", more: str = "", kind: str = "uint8") -> Graph:
    return graph_of(
        f"graph main(%x: {kind}[{shape}]{more}) -> (y) {{{CONSTANTS}{lines}\nreturn %y\n}}"
    )


def left(g: Graph, feeds: dict[str, np.ndarray] | None = None) -> list[str]:
    """The ops that simplify leaves in order, constants apart; results have the same bits."""
    given = {**random_feeds(g), **(feeds or {})}
    expected = evaluate(g, given)
    run(g, "simplify,dce")
    for actual, wanted in zip(evaluate(g, given), expected, strict=True):
        assert (actual.dtype, actual.shape) == (wanted.dtype, wanted.shape)
        np.testing.assert_array_equal(actual, wanted)
    return [n.op for n in g.topological() if n.key != "Constant"]


@pytest.mark.parametrize("move, op", [
    ("Transpose(%f) {perm=[0, 2, 3, 1]}", "Transpose"),
    ("kiln.Reshape(%f) {shape=[4, 48]}", "Reshape"),
    ("SpaceToDepth(%f) {blocksize=2}", "SpaceToDepth"),
    ("MaxPool(%f) {kernel_shape=[2, 2], pads=[1, 1, 0, 0]}", "MaxPool"),
])  # fmt: skip
def test_bytes_are_moved(move: str, op: str) -> None:
    assert left(graph(f"%m = {move}\n%y = Exp(%m)")) == [op, "DequantizeLinear", "Exp"]


@pytest.mark.parametrize("form", ["(%x, %s, _)", "(%x, %s, %z) {output_dtype=10}"])
def test_bytes_are_moved_from_forms_of_dequantisation(form: str) -> None:
    lines = f"%g = DequantizeLinear{form}\n%m = Transpose(%g)\n%y = Exp(%m)"
    assert left(graph(lines)) == ["Transpose", "DequantizeLinear", "Exp"]


def test_other_readers_dequantise_for_themselves() -> None:
    lines = "%m = Transpose(%f) {perm=[0, 1, 3, 2]}\n%e = Exp(%f)\n%y = MatMul(%e, %m)"
    assert left(graph(lines)).count("DequantizeLinear") == 2


@pytest.mark.parametrize("lines", [
    # New elements, of floats.
    '%c = constant float32[4] [1.0, 1.0, 2.0, 2.0]\n%m = Resize(%f, _, %c) {mode="linear"}',
    # Another order of elements.
    "%g = DequantizeLinear(%x, %minus, %z)\n%m = MaxPool(%g) {kernel_shape=[2, 2]}",
    # An order that is gone, or not known.
    "%g = DequantizeLinear(%x, %nothing, %z)\n%m = MaxPool(%g) {kernel_shape=[2, 2]}",
    "%g = DequantizeLinear(%x, %p, %z)\n%m = MaxPool(%g) {kernel_shape=[2, 2]}",
    # Indices besides the elements.
    "%v, %i = MaxPool(%f) {kernel_shape=[2, 2]}\n%j = Cast(%i) {to=1}\n%m = Add(%v, %j)",
    # A constant is dequantised once, when it is folded.
    "%g = DequantizeLinear(%k, %s, %z)\n%m = Transpose(%g)",
    # Integers of 16 bits.
    "%w = Cast(%x) {to=4}\n%g = DequantizeLinear(%w, %s)\n%m = Transpose(%g)",
])  # fmt: skip
def test_floats_are_moved(lines: str) -> None:
    g = graph(f"%nothing = constant float32[] 0.0\n{lines}\n%y = Exp(%m)", more=", %p: float32[]")
    run(g, "dce")
    before = [n.op for n in g.topological()]
    assert left(g) == before


def test_scales_along_an_axis_stay_with_it() -> None:
    lines = "%g = DequantizeLinear(%x, %row, %zr) {axis=0}\n%m = Transpose(%g)\n%y = Exp(%m)"
    assert left(graph(lines, "2,3"))[0] == "DequantizeLinear"


def test_a_quantizer_goes_first_where_others_read_as_well() -> None:
    lines = "%m = Transpose(%f) {perm=[0, 2, 3, 1]}\n%q = QuantizeLinear(%m, %t, %n)\n"
    lines += "%g = DequantizeLinear(%q, %t, %n)\n%e = Exp(%m)\n%y = Add(%e, %g)"
    ops = left(graph(lines))
    assert ops.index("DequantizeLinear") < ops.index("Transpose")


def test_a_quantizer_goes_first() -> None:
    lines = "%m = Transpose(%f) {perm=[0, 2, 3, 1]}\n%y = QuantizeLinear(%m, %t, %n)"
    assert left(graph(lines)) == ["DequantizeLinear", "QuantizeLinear", "Transpose"]


def test_a_pool_moves_bytes_where_some_readers_quantize() -> None:
    lines = "%m = MaxPool(%f) {kernel_shape=[2, 2]}\n%q = QuantizeLinear(%m, %s, %z)\n"
    lines += "%g = DequantizeLinear(%q, %t)\n%e = Exp(%m)\n%y = Add(%e, %g)"
    ops = left(graph(lines))
    assert ops[0] == "MaxPool" and "QuantizeLinear" not in ops


ASYMMETRIC = 'coordinate_transformation_mode="asymmetric", nearest_mode="floor"'


def test_elements_are_quantized_before_they_are_repeated() -> None:
    lines = f"""%r = Relu(%v)
%c = constant float32[4] [1.0, 1.0, 2.0, 2.0]
%m = Resize(%r, _, %c) {{mode="nearest", {ASYMMETRIC}}}
%y = QuantizeLinear(%m, %t, %z)"""
    g = graph(lines, more=", %v: float32[1,4,5,6]")
    run(g, "dce")
    assert left(g) == ["QuantizeLinear", "Clip", "Resize"]


@pytest.mark.parametrize("factor, mode", [("0.5", "nearest"), ("2.0", "linear")])
def test_fewer_or_other_elements_are_quantized_last(factor: str, mode: str) -> None:
    lines = f"""%r = Relu(%v)
%c = constant float32[4] [1.0, 1.0, {factor}, {factor}]
%m = Resize(%r, _, %c) {{mode="{mode}"}}
%y = QuantizeLinear(%m, %t, %z)"""
    g = graph(lines, more=", %v: float32[1,4,6,6]")
    run(g, "dce")
    assert left(g)[-2:] == ["Resize", "QuantizeLinear"]


SECOND = ", %v: uint8[1,3,6,8]"


@pytest.mark.parametrize("rest", [", %s, %z)", ", %s)", ", %s, %z) {output_dtype=10}"])
def test_parts_with_the_same_scale_are_joined_as_bytes(rest: str) -> None:
    lines = f"%e = DequantizeLinear(%x{rest}\n%g = DequantizeLinear(%v{rest}\n"
    lines += "%c = Concat(%e, %g) {axis=1}\n%y = Exp(%c)"
    assert left(graph(lines, more=SECOND)) == ["Concat", "DequantizeLinear", "Exp"]


@pytest.mark.parametrize("second", [
    "DequantizeLinear(%v, %t, %z)", "DequantizeLinear(%v, %s)", "Cast(%v) {to=1}",
    "com.microsoft.DequantizeLinear(%v, %s, %z)",
])  # fmt: skip
def test_other_parts_are_joined_as_floats(second: str) -> None:
    lines = f"%g = {second}\n%c = Concat(%f, %g) {{axis=1}}\n%y = Exp(%c)"
    assert left(graph(lines, more=SECOND))[-2:] == ["Concat", "Exp"]


@pytest.mark.parametrize("first, second", [
    # Scales along the axis that is joined.
    ("DequantizeLinear(%b, %row, %zr) {axis=1}", "DequantizeLinear(%b, %row, %zr) {axis=1}"),
    # Constants, which are dequantised once, when they are folded.
    ("DequantizeLinear(%b, %s)", "DequantizeLinear(%k, %s)"),
    ("DequantizeLinear(%k, %s)", "DequantizeLinear(%b, %s)"),
    # Integers of 16 bits.
    ("DequantizeLinear(%w, %s)", "DequantizeLinear(%w, %s)"),
])  # fmt: skip
def test_parts_that_are_no_bytes_of_the_run_with_one_scale(first: str, second: str) -> None:
    lines = f"%f1 = {first}\n%f2 = {second}\n%c = Concat(%f1, %f2) {{axis=1}}\n%y = Exp(%c)"
    ops = left(graph(lines, more=", %b: uint8[3,2], %w: uint16[3,2]"))
    assert ops == ["DequantizeLinear", "DequantizeLinear", "Concat", "Exp"]


def test_parts_of_other_types_are_joined_as_floats() -> None:
    lines = "%g = DequantizeLinear(%v, %s)\n%f2 = DequantizeLinear(%x, %s)\n"
    lines += "%c = Concat(%f2, %g) {axis=1}\n%y = Exp(%c)"
    assert left(graph(lines, more=", %v: int8[1,3,6,8]"))[-2:] == ["Concat", "Exp"]


INDICES = {"i": np.array([[2, 0, -1], [1, 1, 0]])}


@pytest.mark.parametrize("zeros", ["", ", %zeros"])
def test_rows_of_a_table_are_dequantised_where_they_are_read(zeros: str) -> None:
    lines = f"%g = DequantizeLinear(%k, %scales{zeros}) {{axis=0}}\n%y = Gather(%g, %i) {{axis=0}}"
    ops = left(graph(lines, "1", ", %i: int64[2,3]"), INDICES)
    assert "DequantizeLinear" not in ops and ops.count("Gather") == (3 if zeros else 2)


def test_columns_of_a_table_with_scales() -> None:
    lines = "%g = DequantizeLinear(%x, %row, %zr) {axis=1}\n%y = Gather(%g, %i) {axis=-3}"
    ops = left(graph(lines, "3,2,5", ", %i: int64[2,3]"), INDICES)
    assert ops == ["DequantizeLinear", "Gather"]


def test_a_table_with_one_scale() -> None:
    ops = left(graph("%y = Gather(%f, %i) {axis=1}", "2,3,5", ", %i: int64[2,3]"), INDICES)
    assert ops == ["Gather", "DequantizeLinear"]


def test_a_table_with_a_list_of_one_scale() -> None:
    lines = "%one = constant float32[1] [0.25]\n%g = DequantizeLinear(%k, %one)\n"
    ops = left(graph(f"{lines}%y = Gather(%g, %i)", "1", ", %i: int64[2,3]"), INDICES)
    assert ops == ["Gather", "DequantizeLinear"]


@pytest.mark.parametrize("kind", ["float16", "bfloat16"])
def test_rows_of_a_narrow_table_are_widened_where_they_are_read(kind: str) -> None:
    lines = f"%halves = constant {kind}[3,2] [0.5, 1, 2, -3, 4, 0.25]\n"
    lines += "%g = Cast(%halves) {to=1}\n%y = Gather(%g, %i)"
    assert left(graph(lines, "1", ", %i: int64[2,3]"), INDICES) == ["Gather", "Cast"]


def test_a_wide_table_is_not_gathered_first() -> None:
    lines = "%wide = constant float64[3,2] [0.5, 1, 2, -3, 4, 0.25]\n"
    lines += "%g = Cast(%wide) {to=1}\n%y = Gather(%g, %i)"
    assert left(graph(lines, "1", ", %i: int64[2,3]"), INDICES) == ["Cast", "Gather"]


STAYS = {
    "blocks": "%g = DequantizeLinear(%k, %wide) {axis=0, block_size=3}\n%y = Gather(%g, %i)",
    "other axis": "%g = DequantizeLinear(%k, %row) {axis=1}\n%y = Gather(%g, %i)",
    "16 bits": "%g = DequantizeLinear(%k16, %scales) {axis=0}\n%y = Gather(%g, %i)",
    "16 bits, one scale": "%g = DequantizeLinear(%k16, %s)\n%y = Gather(%g, %i)",
    "float16": "%g = DequantizeLinear(%k, %halves) {axis=0}\n%y = Gather(%g, %i)",
    "to float16": "%g = DequantizeLinear(%k, %scales) {axis=0, output_dtype=10}\n"
    "%y = Gather(%g, %i)",
}
MORE = """
%wide = constant float32[1,2] [0.02, 0.04]
%halves = constant float16[3] [0.5, 0.25, 0.125]
%k16 = constant uint16[3,2] [1, 2, 3, 4, 5, 600]
"""


@pytest.mark.parametrize("lines", STAYS.values(), ids=STAYS)
def test_other_tables_are_dequantised_first(lines: str) -> None:
    ops = left(graph(MORE + lines, "1", ", %i: int64[2,3]"), INDICES)
    assert ops == ["DequantizeLinear", "Gather"]


def test_zero_points_of_the_run_are_gathered() -> None:
    lines = "%g = DequantizeLinear(%k, %scales, %p) {axis=0}\n%y = Gather(%g, %i)"
    ops = left(graph(lines, "1", ", %i: int64[2,3], %p: uint8[3]"), INDICES)
    assert ops.count("Gather") == 3


def test_zero_points_of_zero_are_not() -> None:
    lines = "%n3 = constant uint8[3] [0, 0, 0]\n"
    lines += "%g = DequantizeLinear(%k, %scales, %n3) {axis=0}\n%y = Gather(%g, %i)"
    assert left(graph(lines, "1", ", %i: int64[2,3]"), INDICES).count("Gather") == 2


def test_places_along_a_middle_axis() -> None:
    lines = "%g = DequantizeLinear(%x, %scales, %zeros) {axis=1}\n%y = Gather(%g, %i) {axis=1}"
    ops = left(graph(lines, "2,3,5", ", %i: int64[2,3]"), INDICES)
    assert "DequantizeLinear" not in ops and ops.count("Gather") == 3


def test_the_type_of_a_table_with_one_scale_stays() -> None:
    lines = "%g = DequantizeLinear(%k, %s) {output_dtype=10}\n%y = Gather(%g, %i)"
    ops = left(graph(lines, "1", ", %i: int64[2,3]"), INDICES)
    assert ops == ["Gather", "DequantizeLinear"]


def test_pixels_are_repeated_as_bytes() -> None:
    lines = "%c = constant float32[4] [1.0, 1.0, 2.0, 2.0]\n"
    lines += '%m = Resize(%f, _, %c) {mode="nearest"}\n%y = Exp(%m)'
    assert left(graph(lines)) == ["Resize", "DequantizeLinear", "Exp"]
