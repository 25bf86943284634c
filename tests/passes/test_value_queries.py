"""What rules ask about values: who uses them, which number they are, and the signs of floats."""

from __future__ import annotations

import pytest
from support.graph_text import graph_of

from graphkiln.ir.graph import Graph, Value
from graphkiln.passes.float_signs import (
    is_sum,
    never_negative_zero,
    not_below_zero,
    not_negative,
    zeros_look_alike,
)
from graphkiln.passes.queries import single_use, sole_consumer, splat


def graph(lines: str, results: str = "y") -> Graph:
    listed = ", ".join(f"%{r}" for r in results.split(", "))
    return graph_of(f"graph main(%x: float32[2,4], %z: float32[2,4], %i: int32[2,4]) -> ({results})"
                    f" {{\n{lines}\nreturn {listed}\n}}")  # fmt: skip


def value(found: Graph, name: str) -> Value:
    return next(v for n in found.nx for v in n.values if v.name == name)


PARTS = "%a, %b = Split(%x) {axis=1, num_outputs=2}\n"


@pytest.mark.parametrize(
    ("lines", "name", "consumer", "single"),
    [
        (PARTS + "%y = Exp(%a)\n%w = Neg(%b)\n", "a", "Exp", True),
        (PARTS + "%y = Exp(%a)\n%w = Neg(%b)\n", "b", "Neg", True),
        (PARTS + "%y = Mul(%a, %b)\n%w = Neg(%b)", "a", "Mul", True),
        (PARTS + "%y = Mul(%a, %b)\n%w = Neg(%b)", "b", None, False),
        (PARTS + "%y = Mul(%a, %a)\n%w = Neg(%b)", "a", "Mul", False),
        (PARTS + "%y = Exp(%a)\n%w = Identity(%y)", "y", None, False),
        (PARTS + "%y = Exp(%a)\n%w = Exp(%a)", "b", None, False),
        (PARTS + "%y = Exp(%a)\n%w = Neg(%b)", "y", None, False),
    ],
)
def test_who_uses_a_value(lines: str, name: str, consumer: str | None, single: bool) -> None:
    found = graph(lines, "y, w")
    user = sole_consumer(found, value(found, name))
    assert (user.op if user else None) == consumer
    assert single_use(found, value(found, name)) is single


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("float32[] 2.5", 2.5),
        ("float32[2,2] [3.0, 3.0, 3.0, 3.0]", 3.0),
        ("int64[1] [-7]", -7),
        ("bool[2] [true, true]", True),
        ("float32[2] [3.0, 4.0]", None),
        ("float32[2] [0.0, 1.0]", None),
        ("float32[0] []", None),
        ("float32[20] [" + "1.0, " * 19 + "2.0]", None),
        ("float32[20] [" + "1.0, " * 19 + "1.0]", 1.0),
        ('string[1] ["a"]', None),
    ],
)
def test_which_number_a_constant_is(text: str, number: object) -> None:
    found = graph(f"%c = constant {text}\n%y = Identity(%c)")
    assert splat(value(found, "c")) == number
    assert splat(value(found, "x")) is None and splat(None) is None


ONE = "%c = constant float32[] 1.0\n"
MINUS = "%c = constant float32[] -1.0\n"
ZERO = "%c = constant float32[] 0.0\n"
NEGATIVE_ZERO = "%c = constant float32[] -0.0\n"
TWO = "%c = constant float32[] 2.0\n"
THREE = "%c = constant float32[] 3.0\n"


@pytest.mark.parametrize(
    ("lines", "known"),
    [
        ("%y = Abs(%x)", True),
        ("%y = Identity(%x)", False),
        ("%y = Mul(%x, %x)", True),
        ("%y = Mul(%x, %z)", False),
        (TWO + "%y = Pow(%x, %c)", True),
        (THREE + "%y = Pow(%x, %c)", False),
        ("%a = Abs(%x)\n%y = Transpose(%a)", True),
        ("%y = Transpose(%x)", False),
        ("%a = Abs(%x)\n%b = Abs(%z)\n%y = Add(%a, %b)", True),
        ("%a = Abs(%x)\n%y = Add(%a, %z)", False),
        ("%a = Abs(%x)\n%y = Add(%z, %a)", False),
        ("%a = Abs(%x)\n%b = Abs(%z)\n%y = Sub(%a, %b)", False),
        ("%a = Abs(%x)\n%y = ReduceSum(%a)", True),
        ("%a = Abs(%x)\n%y = Sqrt(%a)", True),
        ("%a = Abs(%x)\n%y = Neg(%a)", False),
        (ONE + "%y = Identity(%c)", True),
        (ZERO + "%y = Identity(%c)", True),
        (NEGATIVE_ZERO + "%y = Identity(%c)", False),
        (MINUS + "%y = Identity(%c)", False),
        ('%c = constant string[1] ["a"]\n%y = Identity(%c)', False),
    ],
)
def test_what_is_not_negative(lines: str, known: bool) -> None:
    found = graph(lines)
    asked = found.input(value(found, "y").node, 0) if "%c)" in lines and "Id" in lines else None
    assert not_negative(found, asked or value(found, "y")) is known


@pytest.mark.parametrize(
    ("lines", "known"),
    [
        ("%y = Relu(%x)", True),
        ("%y = Abs(%x)", True),
        ("%a = Relu(%x)\n%y = Transpose(%a)", True),
        (ZERO + TWO.replace("%c", "%d") + "%y = Clip(%x, %c, %d)", True),
        (NEGATIVE_ZERO + "%y = Clip(%x, %c)", True),
        (MINUS + "%y = Clip(%x, %c)", False),
        ("%y = Clip(%x)", False),
        ("%a = Relu(%x)\n%y = Neg(%a)", False),
        ("%y = Transpose(%x)", False),
    ],
)
def test_what_is_not_below_zero(lines: str, known: bool) -> None:
    found = graph(lines)
    assert not_below_zero(found, value(found, "y")) is known


@pytest.mark.parametrize("length, known", [(3, True), (30, False)])
def test_it_looks_so_far_and_no_further(length: int, known: bool) -> None:
    """Time stays linear in the size of the graph."""
    turns = "".join(f"%t{i + 1} = Transpose(%t{i})\n" for i in range(length))
    first = "%t0 = Abs(%x)\n"
    found = graph(f"{first}{turns}%y = Identity(%t{length})")
    assert not_negative(found, value(found, f"t{length}")) is known
    found = graph(f"%t0 = ReduceSum(%x)\n{turns}%y = Identity(%t{length})")
    assert is_sum(found, value(found, f"t{length}")) is known


@pytest.mark.parametrize(
    ("lines", "known"),
    [
        (ONE + "%y = Add(%x, %c)", True),
        (ZERO + "%y = Add(%x, %c)", True),
        (NEGATIVE_ZERO + "%y = Add(%c, %x)", False),
        ("%y = Add(%x, %z)", False),
        (ONE + "%y = Sub(%x, %c)", True),
        (ZERO + "%y = Sub(%x, %c)", False),
        (NEGATIVE_ZERO + "%y = Sub(%x, %c)", True),
        (ZERO + "%y = Sub(%c, %x)", True),
        (NEGATIVE_ZERO + "%y = Sub(%c, %x)", False),
        ("%y = Cast(%i) {to=1}", True),
        ("%y = Cast(%x) {to=11}", False),
        ("%y = Abs(%x)", True),
        ("%y = Neg(%x)", False),
    ],
)
def test_what_is_never_negative_zero(lines: str, known: bool) -> None:
    found = graph(lines)
    assert never_negative_zero(found, value(found, "y")) is known


@pytest.mark.parametrize(
    ("lines", "known"),
    [
        ("%y = ReduceSum(%x)", True),
        ("%y = ReduceSum(%x) {noop_with_empty_axes=1}", False),
        ("%y = ReduceMax(%x)", False),
        ("%t = Transpose(%z)\n%y = MatMul(%x, %t)", True),
        ("%s = ReduceSum(%x)\n%y = Add(%s, %z)", True),
        ("%s = ReduceSum(%x)\n%y = Add(%z, %s)", True),
        ("%s = ReduceSum(%x)\n%y = Mul(%z, %s)", False),
        ("%y = Add(%x, %z)", False),
        ("%s = ReduceSum(%x)\n%y = Transpose(%s)", True),
        ("%y = Transpose(%x)", False),
    ],
)
def test_what_is_a_sum(lines: str, known: bool) -> None:
    found = graph(lines)
    assert is_sum(found, value(found, "y")) is known


@pytest.mark.parametrize(
    ("lines", "results", "alike"),
    [
        ("%y = Add(%x, %z)\n%w = Abs(%y)", "w", True),
        ("%y = Add(%x, %z)\n%w = Neg(%y)", "w", False),
        ("%y = Add(%x, %z)\n%a = Abs(%y)\n%b = Neg(%y)\n%w = Add(%a, %b)", "w", False),
        ("%y = Add(%x, %z)", "y", False),
    ],
)
def test_where_zeros_look_alike(lines: str, results: str, alike: bool) -> None:
    found = graph(lines, results)
    assert zeros_look_alike(found, value(found, "y")) is alike
