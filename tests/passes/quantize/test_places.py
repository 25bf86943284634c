"""Which tensors are quantized, and with which other tensors they share a range."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import constant_lines, graph_of

from graphkiln.ir.graph import Graph
from graphkiln.passes.quantize.places import Places, places_of

CONSTANTS, ARRAYS = constant_lines({
    "w": np.ones((4, 4, 1, 1), np.float32),
    "v": np.ones((4, 4, 3, 3), np.float32),
    "m": np.ones((16, 5), np.float32),
    "half": np.full((1, 4, 1, 1), 0.5, np.float32),
    "flat": np.array([1, -1], np.int64),
})  # fmt: skip
X = "%x: float32[1,4,2,2]"


def places(lines: str, params: str = X, result: str = "%y") -> tuple[Graph, Places]:
    text = f"graph main({params}) -> (o) {{\n{CONSTANTS}\n{lines}\nreturn {result}\n}}"
    graph = graph_of(text, ARRAYS)
    return graph, places_of(graph)


def names(found: Places) -> set[str]:
    return {v.name for v in found.tensors}


def groups(found: Places) -> set[frozenset[str]]:
    return {frozenset(v.name for v in group) for group in found.groups}


def test_both_operands_of_a_product() -> None:
    _, found = places("%y = Conv(%x, %w)")
    assert names(found) == {"x"}
    assert [(u.node.key, u.index) for u in found.weights] == [("Conv", 1)]


def test_two_computed_operands() -> None:
    _, found = places("%y = MatMul(%a, %b)", "%a: float32[2,3], %b: float32[3,4]")
    assert names(found) == {"a", "b"} and found.weights == []
    assert groups(found) == {frozenset("a"), frozenset("b")}


def test_what_only_moves_has_the_range_of_what_it_moves() -> None:
    _, found = places(
        "%p = MaxPool(%x) {kernel_shape=[2, 2]}\n%r = Reshape(%p, %flat)\n"
        "%t = Transpose(%r) {perm=[1, 0]}\n%y = MatMul(%t, %r)"
    )
    assert names(found) == {"x", "p", "r", "t"}
    assert groups(found) == {frozenset({"x", "p", "r", "t"})}
    assert {v.name for v in found.moved} == {"p", "r", "t"}


def test_parts_of_a_concatenation_share_a_range() -> None:
    _, found = places("%r = Relu(%x)\n%c = Concat(%x, %r) {axis=2}\n%y = Conv(%c, %w)")
    assert groups(found) == {frozenset({"x", "r", "c"})}
    assert {v.name for v in found.moved} == {"c"}


def test_operands_of_a_sum_have_ranges_of_their_own() -> None:
    _, found = places("%a = Conv(%x, %w)\n%s = Add(%a, %x)\n%y = Conv(%s, %w)")
    assert groups(found) == {frozenset({"s"}), frozenset({"a"}), frozenset({"x"})}


@pytest.mark.parametrize(
    "lines",
    [
        "%s = Add(%x, %half)\n%y = Conv(%s, %w)",  # one operand is constant
        "%s = Mul(%x, %x)\n%y = Conv(%s, %w)",  # no sum
        "%s = Relu(%x)\n%y = Conv(%s, %w)",
    ],
)
def test_other_ops_compute_floats(lines: str) -> None:
    assert names(places(lines)[1]) == {"s"}


def test_sums_whose_result_no_product_reads_stay() -> None:
    _, found = places("%a = Conv(%x, %w)\n%y = Add(%a, %x)")
    assert names(found) == {"x"}


def test_only_the_uses_that_need_it_read_the_quantized_form() -> None:
    graph, found = places("%a = Conv(%x, %w)\n%b = Relu(%x)\n%y = Add(%a, %b)")
    (uses,) = found.tensors.values()
    assert [(u.node.key, u.index) for u in uses] == [("Conv", 0)]


def test_a_tensor_that_two_products_read_is_quantized_once() -> None:
    _, found = places("%a = Conv(%x, %w)\n%b = Conv(%x, %w)\n%y = Add(%a, %b)")
    assert names(found) == {"x"} and len(found.weights) == 2
    assert len(next(iter(found.tensors.values()))) == 2


@pytest.mark.parametrize("kind", ["float16", "float64", "int32"])
def test_products_of_other_types_stay(kind: str) -> None:
    _, found = places("%y = MatMul(%a, %b)", f"%a: {kind}[2,3], %b: {kind}[3,4]")
    assert not found.tensors and not found.weights


@pytest.mark.parametrize("function", ["Swish", "HardSwish", "Sigmoid", "Gelu"])
def test_functions_of_short_sums_read_bytes(function: str) -> None:
    _, found = places(f"%c = Conv(%x, %w)\n%s = {function}(%c)\n%y = Conv(%s, %w)")
    assert names(found) == {"x", "c", "s"}
    assert groups(found) == {frozenset("x"), frozenset("c"), frozenset("s")}


def test_cheap_functions_do_not() -> None:
    _, found = places("%c = Conv(%x, %w)\n%s = Relu(%c)\n%y = Conv(%s, %w)")
    assert names(found) == {"x", "s"}


def test_functions_of_long_sums_do_not() -> None:
    weights = {"m": np.ones((600, 5), np.float32), "n": np.ones((5, 2), np.float32)}
    lines, arrays = constant_lines(weights)
    text = (f"graph main(%x: float32[2,600]) -> (o) {{\n{lines}\n"
            "%p = MatMul(%x, %m)\n%g = Gelu(%p)\n%y = MatMul(%g, %n)\nreturn %y\n}")  # fmt: skip
    assert names(places_of(graph_of(text, arrays))) == {"x", "g"}


def test_factors_of_channels_are_floats_and_what_they_scale_is_bytes() -> None:
    """Squeeze and excitation: everybody reads the quantized result of the function."""
    graph, found = places(
        "%c = Conv(%x, %w)\n%s = Swish(%c)\n%a = GlobalAveragePool(%s)\n%e = Sigmoid(%a)\n"
        "%f = Mul(%s, %e)\n%y = Conv(%f, %w)"
    )
    assert names(found) == {"x", "c", "s", "f"}
    (swish,) = (v for v in found.tensors if v.name == "s")
    assert {u.node.key for u in found.tensors[swish]} == {"GlobalAveragePool", "Mul"}


def test_a_convolution_that_factors_of_channels_scale_is_bytes_for_all_its_readers() -> None:
    lines = "%c = Conv(%x, %w)\n%a = GlobalAveragePool(%c)\n%e = Sigmoid(%a)\n%f = Mul(%c, %e)\n"
    _, found = places(f"{lines}%y = Conv(%f, %w)")
    assert names(found) == {"x", "c", "f"}
    (scaled,) = (v for v in found.tensors if v.name == "c")
    assert {u.node.key for u in found.tensors[scaled]} == {"GlobalAveragePool", "Mul"}


def test_a_convolution_with_one_reader_is_scaled_in_floats() -> None:
    _, found = places("%c = Conv(%x, %w)\n%f = Mul(%c, %e)\n%y = Conv(%f, %w)",
                      f"{X}, %e: float32[1,4,1,1]")  # fmt: skip
    assert names(found) == {"x", "f"}
