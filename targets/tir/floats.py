"""Building blocks of floating-point code: constants, sign and NaN handling, polynomials.

Every function takes scalar or vector expressions of float32 or float64, and the result has as many
lanes.

TVM's simplifier treats floats as real numbers in a few places: ``x - x`` becomes 0, ``(x + y) - y``
becomes ``x``, ``x != x`` becomes false. It substitutes bound variables, too. Code that depends on
rounding or on NaN therefore uses :func:`subtract` and :func:`is_nan`.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import copysign
from typing import Any

from tvm import tirx

from .numeric import cast, dtype_of

Expr = Any

_BITS = {"float32": "int32", "float64": "int64"}


def scalar_dtype(value: Expr) -> str:
    """The element dtype of a scalar or vector expression."""
    return dtype_of(value).partition("x")[0]


def with_lanes(dtype: str, like: Expr) -> str:
    """``dtype`` with as many lanes as ``like``."""
    lanes = dtype_of(like).partition("x")[2]
    return f"{dtype}x{lanes}" if lanes else dtype


def constant(value: float, like: Expr) -> Expr:
    """``value`` in the dtype and lanes of ``like``."""
    return tirx.const(value, dtype_of(like))


def is_double(value: Expr) -> bool:
    return scalar_dtype(value) == "float64"


def convert(value: Expr, dtype: str) -> Expr:
    """``value`` converted to ``dtype``, lane by lane."""
    return cast(value, with_lanes(dtype, value))


def bits_of(value: Expr) -> Expr:
    """The IEEE bits of a float as a signed integer."""
    return tirx.reinterpret(with_lanes(_BITS[scalar_dtype(value)], value), value)


def from_bits(bits: Expr) -> Expr:
    """The float32 (of an int32) or float64 (of an int64) with these bits."""
    to = "float32" if scalar_dtype(bits) == "int32" else "float64"
    return tirx.reinterpret(with_lanes(to, bits), bits)


def nan(like: Expr) -> Expr:
    """A quiet NaN."""
    raw = {"float32": 0x7FC00000, "float64": 0x7FF8000000000000}[scalar_dtype(like)]
    return from_bits(tirx.const(raw, with_lanes(_BITS[scalar_dtype(like)], like)))


def infinity(like: Expr) -> Expr:
    """Positive infinity."""
    raw = {"float32": 0x7F800000, "float64": 0x7FF0000000000000}[scalar_dtype(like)]
    return from_bits(tirx.const(raw, with_lanes(_BITS[scalar_dtype(like)], like)))


def negate(value: Expr) -> Expr:
    """``-value``, with the sign of zero flipped too."""
    return value * constant(-1.0, value)


def subtract(a: Expr, b: Expr) -> Expr:
    """``a - b`` in a form that the simplifier does not cancel; LLVM makes it one subtraction."""
    return a + negate(b)


def is_nan(value: Expr) -> Expr:
    """True for NaN alone; unlike TVM's own call this has a vector form."""
    largest = 0x7FF0000000000000 if is_double(value) else 0x7F800000
    bits = bits_of(absolute(value))
    return bits > tirx.const(largest, dtype_of(bits))


def absolute(value: Expr) -> Expr:
    """``|value|`` by clearing the sign bit."""
    mask = 0x7FFFFFFF if not is_double(value) else 0x7FFFFFFFFFFFFFFF
    bits = bits_of(value)
    return from_bits(tirx.bitwise_and(bits, tirx.const(mask, dtype_of(bits))))


def sign_bit(value: Expr) -> Expr:
    """The sign bit alone, in place, as an integer."""
    bits = bits_of(value)
    width = 63 if is_double(value) else 31
    return tirx.bitwise_and(bits, tirx.const(-(2**width), dtype_of(bits)))


def with_sign(magnitude: Expr, sign: Expr) -> Expr:
    """A non-negative ``magnitude`` with the sign of ``sign``."""
    return from_bits(tirx.bitwise_or(bits_of(magnitude), sign_bit(sign)))


def at_most(value: Expr, limit: float) -> Expr:
    """``min(value, limit)``; NaN stays NaN."""
    top = constant(limit, value)
    return tirx.Select(value > top, top, value)


def at_least(value: Expr, limit: float) -> Expr:
    """``max(value, limit)``; NaN stays NaN."""
    bottom = constant(limit, value)
    return tirx.Select(value < bottom, bottom, value)


def maximum(a: Expr, b: Expr) -> Expr:
    """``numpy.maximum``: NaN where either is NaN, the first of two zeros.

    The operands are used twice: bind them. Literals give the same bits with fewer instructions.
    """
    if isinstance(a, tirx.FloatImm):
        return tirx.Select(b <= a, a, b)
    if isinstance(b, tirx.FloatImm):
        return tirx.Select(a < b, b, a)
    return tirx.Select(tirx.Or(a < b, is_nan(b)), b, a)


def minimum(a: Expr, b: Expr) -> Expr:
    """``numpy.minimum``: NaN where either is NaN, the first of two zeros; see :func:`maximum`."""
    if isinstance(a, tirx.FloatImm):
        return tirx.Select(b >= a, a, b)
    if isinstance(b, tirx.FloatImm):
        return tirx.Select(a > b, b, a)
    return tirx.Select(tirx.Or(a > b, is_nan(b)), b, a)


def larger(a: Expr, b: Expr) -> Expr:
    """The larger of two floats: NaN where either is NaN, -0 of two zeros that differ.

    The result does not depend on the order of operands. The maximum of x86 gives its second operand
    where either is NaN, so this takes the ``or`` of the bits of both orders: a NaN combined with
    any bits is a NaN, and equal results stay as they are. The operands are used four times: bind
    them.
    """
    first, second = tirx.Select(a > b, a, b), tirx.Select(b > a, b, a)
    return from_bits(tirx.bitwise_or(bits_of(first), bits_of(second)))


def horner(coefficients: Sequence[float], x: Expr) -> Expr:
    """The polynomial with these coefficients (lowest degree first) at ``x``."""
    result = constant(coefficients[-1], x)
    for c in reversed(coefficients[:-1]):
        result = result * x + constant(c, x)
    return result


def libm(name: str, *operands: Expr) -> Expr:
    """A call of the C library's function for float64 (scalar expressions only)."""
    return tirx.call_pure_extern("float64", name, *operands)


def keep_zero(value: Expr) -> Expr:
    """``value``, but hidden from TVM's constant folding where it is zero.

    TVM folds ``x * 0.0`` to 0 even where ``x`` may be NaN, and makes ``x / 0.0`` an error.
    """
    if not isinstance(value, tirx.FloatImm) or value.value != 0:
        return value
    bits, lowest = ("int64", -(2**63)) if is_double(value) else ("int32", -(2**31))
    minus_zero = from_bits(tirx.const(lowest, bits))
    return minus_zero if copysign(1, value.value) < 0 else negate(minus_zero)


def divide(a: Expr, b: Expr) -> Expr:
    """The quotient of floats, even where TVM could see that the divisor is 0, which it rejects."""
    return keep_zero(a) / keep_zero(b)
