"""Proofs of elementwise rules: the meaning of each op in z3's theories of bits and floats."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from support.smt import exhaust, prove, unproved

from graphkiln.ir.onnx_types import element_code
from graphkiln.ir.types import dtype
from graphkiln.passes.base import pass_names
from graphkiln.passes.claims import Family
from graphkiln.passes.precision import exactly_held

FLOATS = ("float16", "float32", "float64")
INTEGERS = ("int8", "uint8", "int32", "uint64")


def of(kind: str, lines: str) -> str:
    return f"graph main(%x: {kind}[N]) -> (y) {{\n{lines}\nreturn %y\n}}"


def one(kind: str) -> str:
    return "1.0" if kind in FLOATS else "1"


# ---- neutral constants ---------------------------------------------------------------------------


QUICK = ("float16", "float32", *INTEGERS)


@pytest.mark.parametrize("kind", [*QUICK, pytest.param("float64", marks=pytest.mark.slow)])
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


@pytest.mark.parametrize("a", [1.0, -2.0, 64.0, 2048.0])
@pytest.mark.parametrize("b", [1.0, 3.0, -1.5, 1.0009765625, 31.96875])
def test_growing_factors(a: float, b: float) -> None:
    lines = f"%a = constant float16[] {a!r}\n%b = constant float16[] {b!r}\n"
    exhaust("mul-mul", of("float16", f"{lines}%m = Mul(%x, %a)\n%y = Mul(%m, %b)"))


def powers_of_two(kind: str, count: int) -> list[float]:
    """About so many powers of two and their negatives, the ends of what has an inverse included."""
    limits = np.finfo(kind)
    lowest, highest = -limits.maxexp + 1, -limits.minexp
    powers = {*range(lowest, highest, max(1, (highest - lowest) // count)), highest}
    return [(-1.0 if power % 2 else 1.0) * 2.0**power for power in sorted(powers)]


@pytest.mark.parametrize("c", powers_of_two("float16", 31))
def test_every_power_of_two_has_an_inverse(c: float) -> None:
    exhaust("div-constant", of("float16", f"%c = constant float16[] {c!r}\n%y = Div(%x, %c)"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "float64"])
def test_some_powers_of_two_have_inverses(kind: str) -> None:
    for c in powers_of_two(kind, 5):
        prove("div-constant", of(kind, f"%c = constant {kind}[] {c!r}\n%y = Div(%x, %c)"))


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


WIDE = ("int16", "int32", "uint32")
"""Sources whose casts to floats of two kinds take the solver minutes."""


@pytest.mark.parametrize("source", [
    pytest.param(kind, marks=pytest.mark.slow if kind in WIDE else ()) for kind in CAST
])  # fmt: skip
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


@pytest.mark.parametrize("op", ["Sum", "Mean", "Max", "Min"])
@pytest.mark.parametrize("kind", ["float32", "int32", "uint8"])
def test_operands_in_a_row(kind: str, op: str) -> None:
    text = f"""graph main(%x: {kind}[N], %a: {kind}[], %b: {kind}[N]) -> (y) {{
    %y = {op}(%x, %a, %b)
    return %y
    }}"""
    prove("chain", text, pass_name="decompose")


def test_every_rule_that_is_called_proved_has_a_proof() -> None:
    """The last test of this file: it asks what those before it proved."""
    assert not unproved(pass_names(), Family.ELEMENTWISE) | unproved(pass_names(), Family.OTHER)
