"""Proofs of elementwise rules: the meaning of each op in z3's theories of bits and floats."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from support.smt import PROVED, prove

from graphkiln.ir.onnx_types import element_code
from graphkiln.ir.types import dtype
from graphkiln.passes.base import pass_class
from graphkiln.passes.catalog import load
from graphkiln.passes.precision import exactly_held

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "uint8", "int32", "uint64")


def of(kind: str, lines: str) -> str:
    return f"graph main(%x: {kind}[N]) -> (y) {{\n{lines}\nreturn %y\n}}"


def one(kind: str) -> str:
    return "1.0" if kind in FLOATS else "1"


# ---- neutral constants ---------------------------------------------------------------------------


@pytest.mark.parametrize("kind", FLOATS + INTEGERS)
@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_one(op: str, kind: str) -> None:
    lines = f"%c = constant {kind}[] {one(kind)}\n%y = {op}(%x, %c)"
    prove(f"{op.lower()}-one", of(kind, lines))


@pytest.mark.parametrize("kind", FLOATS + INTEGERS)
@pytest.mark.parametrize("op", ["Add", "Sub"])
def test_zero(op: str, kind: str) -> None:
    zero = ("-0.0" if op == "Add" else "0.0") if kind in FLOATS else "0"
    lines = f"%c = constant {kind}[] {zero}\n%y = {op}(%x, %c)"
    prove(f"{op.lower()}-zero", of(kind, lines))


NEVER_MINUS_ZERO = (
    "%z = Abs(%x)",
    "%z = Mul(%x, %x)",
    "%w = Mul(%x, %x)\n%z = Sqrt(%w)",
    "%k = constant float32[] 3.5\n%z = Add(%x, %k)",
    "%k = constant float32[] 0.0\n%z = Add(%x, %k)",
    "%k = constant float32[] -0.0\n%z = Sub(%x, %k)",
    "%n = Abs(%x)\n%m = Mul(%x, %x)\n%z = Max(%n, %m)",
    "%n = Abs(%x)\n%m = Mul(%x, %x)\n%z = Div(%n, %m)",
)


@pytest.mark.parametrize("op, zero", [("Add", "0.0"), ("Sub", "-0.0")])
@pytest.mark.parametrize("lines", NEVER_MINUS_ZERO)
def test_zero_of_what_is_never_minus_zero(lines: str, op: str, zero: str) -> None:
    rest = f"%c = constant float32[] {zero}\n%y = {op}(%z, %c)"
    prove(f"{op.lower()}-zero", of("float32", f"{lines}\n{rest}"))


@pytest.mark.parametrize("use", ["Abs(%s)", "Greater(%s, %c)", "Equal(%x, %s)", "Less(%s, %x)"])
def test_zeros_that_look_alike(use: str) -> None:
    lines = f"%c = constant float32[] 0.0\n%s = Add(%x, %c)\n%y = {use}"
    prove("add-zero", of("float32", lines))


@pytest.mark.parametrize("kind", FLOATS)
def test_infinities(kind: str) -> None:
    for op, bound, name in (("Max", "-inf", "max-lowest"), ("Min", "inf", "min-highest")):
        prove(name, of(kind, f"%c = constant {kind}[] {bound}\n%y = {op}(%x, %c)"))


# ---- constants that meet -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int8", "uint8", "int16", "int32", "uint32", "int64", "uint64"])
@pytest.mark.parametrize("op", ["Add", "Mul"])
def test_integers_wrap_around(op: str, kind: str) -> None:
    limits = np.iinfo(kind)
    for a, b in product((3, limits.max, limits.min or 7), repeat=2):
        lines = f"%a = constant {kind}[] {a}\n%b = constant {kind}[] {b}\n"
        prove(
            f"{op.lower()}-{op.lower()}", of(kind, f"{lines}%m = {op}(%x, %a)\n%y = {op}(%m, %b)")
        )


@pytest.mark.parametrize("kind", ["float16"])
@pytest.mark.parametrize("a", [1.0, -2.0, 64.0, 2048.0])
@pytest.mark.parametrize("b", [1.0, 3.0, -1.5])
def test_growing_factors(kind: str, a: float, b: float) -> None:
    number = float(np.dtype(kind).type(b))
    lines = f"%a = constant {kind}[] {a!r}\n%b = constant {kind}[] {number!r}\n"
    prove("mul-mul", of(kind, f"{lines}%m = Mul(%x, %a)\n%y = Mul(%m, %b)"))


@pytest.mark.parametrize(
    "kind", ["float16", "float32", pytest.param("float64", marks=pytest.mark.slow)]
)
def test_every_power_of_two_has_an_inverse(kind: str) -> None:
    limits = np.finfo(kind)
    lowest, highest = -limits.maxexp + 1, -limits.minexp
    step = 1 if kind == "float16" else (highest - lowest) // 6
    for power in [*range(lowest, highest, step), highest]:
        sign = -1.0 if power % 2 else 1.0
        lines = f"%c = constant {kind}[] {sign * 2.0**power!r}\n%y = Div(%x, %c)"
        prove("div-constant", of(kind, lines))


# ---- one operation for two -----------------------------------------------------------------------

TWICE = {
    "float32": "Neg|Abs|Relu|Ceil|Floor|Round|Sign|Identity", "float16": "Round|Floor",
    "int32": "Neg|Abs|BitwiseNot|Sign|Identity", "bool": "Not", "int8": "Neg|Abs",
}  # fmt: skip


@pytest.mark.parametrize("kind, op", [(k, op) for k, ops in TWICE.items() for op in ops.split("|")])
def test_twice(kind: str, op: str) -> None:
    prove("twice", of(kind, f"%a = {op}(%x)\n%y = {op}(%a)"))


@pytest.mark.parametrize("op", ["Max", "Min", "Sum"])
def test_one_operand(op: str) -> None:
    prove("one-operand", of("float32", f"%y = {op}(%x)"))


# ---- bounds and choices --------------------------------------------------------------------------

BOUNDS = (
    "Relu(%{})",
    "Clip(%{}, %a, %b)",
    "Clip(%{}, _, %b)",
    "Clip(%{}, %b, %a)",
    "Clip(%{}, %c)",
)


@pytest.mark.parametrize(
    "inner, outer", [p for p in product(BOUNDS, repeat=2) if set(p) != {BOUNDS[0]}]
)
def test_bounds_of_bounds(inner: str, outer: str) -> None:
    lines = (
        "%a = constant float32[] -1.5\n%b = constant float32[] 3.25\n%c = constant float32[] 4.0\n"
    )
    prove("clip-clip", of("float32", f"{lines}%z = {inner.format('x')}\n%y = {outer.format('z')}"))


def test_bounds_beyond_the_type() -> None:
    lines = "%a = constant uint8[] 0\n%b = constant uint8[] 255\n%y = Clip(%x, %a, %b)"
    prove("clip-none", of("uint8", lines))
    lines = "%a = constant int8[] -128\n%y = Clip(%x, %a)"
    prove("clip-none", of("int8", lines))
    lines = "%a = constant float32[] -inf\n%b = constant float32[] inf\n%y = Clip(%x, %a, %b)"
    prove("clip-none", of("float32", lines))


@pytest.mark.parametrize("condition", ["true", "false"])
def test_known_choices(condition: str) -> None:
    lines = f"%c = constant bool[] {condition}\n%w = Neg(%x)\n%y = Where(%c, %x, %w)"
    prove("where-constant", of("float32", lines))


# ---- casts ---------------------------------------------------------------------------------------

CAST = ("bool", "int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "float16",
        "bfloat16", "float32", "float64")  # fmt: skip


def _is_left_alone(inner: str, final: str) -> bool:
    return dtype(final).is_integer and dtype(inner).is_float


@pytest.mark.parametrize("source", CAST)
def test_casts(source: str) -> None:
    prove("cast-same", of(source, f"%y = Cast(%x) {{to={element_code(source)}}}"))
    for inner, final in product(CAST, repeat=2):
        if exactly_held(dtype(source), dtype(inner)) and not _is_left_alone(inner, final):
            lines = f"%a = Cast(%x) {{to={element_code(inner)}}}\n"
            prove("cast-cast", of(source, f"{lines}%y = Cast(%a) {{to={element_code(final)}}}"))


def test_what_only_passes_on() -> None:
    prove("identity", of("float32", "%y = Identity(%x)"))
    prove("dropout", of("float32", "%y = Dropout(%x)"))


# ---- sums ----------------------------------------------------------------------------------------


def test_the_mean_of_a_power_of_two() -> None:
    lines = """
    %c = constant float32[] 0.125
    %axes = constant int64[2] [1, 2]
    %s = ReduceSum(%x, %axes)
    %y = Mul(%s, %c)"""
    text = of("float32", lines).replace("[N]", "[N,2,4]")
    prove("mean", text)


@pytest.mark.parametrize("kind, op", [("float32", "Max"), ("float32", "Prod"), ("int32", "Sum")])
def test_reductions_of_one_element(kind: str, op: str) -> None:
    lines = f"%axes = constant int64[1] [1]\n%y = Reduce{op}(%x, %axes)"
    prove("reduce-ones", of(kind, lines).replace("[N]", "[N,1,M]"))


def test_every_rule_that_is_called_proved_has_a_proof() -> None:
    """The last test of this file: it asks what those before it proved."""
    load()
    cls = pass_class("simplify")
    assert cls is not None
    assert {name for name, claim in cls.promises() if claim.is_proved} <= PROVED
