"""Scalar arithmetic with ONNX's semantics for every element type.

Operands have one compute dtype. Integers wrap around; division truncates and a divisor of 0 gives
0 instead of a trap; floats follow NumPy, NaN included. Operands are used more than once: bind
what is costly.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from . import floats
from .builder import Builder
from .numeric import cast, dtype_of

Expr = Any


def is_float(value: Expr) -> bool:
    return dtype_of(value).startswith("float")


def is_unsigned(value: Expr) -> bool:
    return dtype_of(value).startswith("uint")


def width(value: Expr) -> int:
    """Bits of a scalar's dtype."""
    return int(tvm.DataType(dtype_of(value)).bits)


def literal_value(value: Expr) -> float | None:
    """The number behind a literal expression, or None."""
    if isinstance(value, tirx.IntImm | tirx.FloatImm):
        return value.value  # type: ignore[no-any-return]
    return None


def _wrapping(function: Callable[[Expr, Expr], Expr], a: Expr, b: Expr) -> Expr:
    """32-bit integers go through 64 bits and back: LLVM may assume that they never overflow."""
    dtype = dtype_of(a)
    if is_float(a) or width(a) != 32:
        return function(a, b)
    return tirx.Cast(dtype, function(tirx.Cast("int64", a), tirx.Cast("int64", b)))


def add(a: Expr, b: Expr) -> Expr:
    return _wrapping(lambda x, y: x + y, a, b)


def subtract(a: Expr, b: Expr) -> Expr:
    if is_float(a):
        return floats.subtract(a, b)
    return _wrapping(lambda x, y: x - y, a, b)


def multiply(a: Expr, b: Expr) -> Expr:
    if is_float(a):
        return _keep_zero(a) * _keep_zero(b)
    return _wrapping(lambda x, y: x * y, a, b)


def _keep_zero(value: Expr) -> Expr:
    """TVM folds ``x * 0.0`` to 0 even where ``x`` may be NaN; a zero in disguise is not folded."""
    if literal_value(value) != 0:
        return value
    bits = "int64" if floats.is_double(value) else "int32"
    return floats.from_bits(tirx.const(0, bits))


def negate(a: Expr) -> Expr:
    if is_float(a):
        return floats.negate(a)
    return subtract(tirx.const(0, dtype_of(a)), a)


def absolute(a: Expr) -> Expr:
    if is_float(a):
        return floats.absolute(a)
    if is_unsigned(a):
        return a
    return tirx.Select(a < tirx.const(0, dtype_of(a)), negate(a), a)


def divide(a: Expr, b: Expr) -> Expr:
    """Quotient; integers truncate towards zero."""
    if is_float(a):
        return _keep_zero(a) / b
    return _guarded(_truncated_quotient, a, b, lambda x: negate(x))


def remainder(a: Expr, b: Expr) -> Expr:
    """What truncating division leaves: the sign is the dividend's (C's ``fmod``)."""
    if is_float(a):
        name = "fmod" if floats.is_double(a) else "fmodf"
        return tirx.call_pure_extern(dtype_of(a), name, a, b)
    return _guarded(tirx.truncmod, a, b, lambda x: tirx.const(0, dtype_of(x)))


def modulo(a: Expr, b: Expr) -> Expr:
    """What flooring division leaves: the sign is the divisor's (NumPy's ``mod``)."""
    zero = tirx.const(0, dtype_of(a))
    if is_float(a):
        return _float_modulo(a, b, zero)
    if is_unsigned(a):
        return remainder(a, b)
    rest = remainder(a, b)
    differs = tirx.And(tirx.NE(rest, zero), differ(rest < zero, b < zero))
    return tirx.Select(differs, rest + b, rest)


def _float_modulo(a: Expr, b: Expr, zero: Expr) -> Expr:
    rest = remainder(a, b)
    moved = tirx.Select(differ(rest < zero, b < zero), rest + b, rest)
    return tirx.Select(rest.equal(zero), floats.with_sign(zero, b), moved)


def _guarded(
    function: Callable[[Expr, Expr], Expr], a: Expr, b: Expr, by_minus_one: Callable[[Expr], Expr]
) -> Expr:
    """``function(a, b)`` where the processor does not trap: divisors 0 and -1 are set apart."""
    dtype = dtype_of(a)
    zero, one = tirx.const(0, dtype), tirx.const(1, dtype)
    known = literal_value(b)
    if known is not None and known not in (0, -1):
        return function(a, b)
    at_zero = b.equal(zero)
    if is_unsigned(a):
        safe = tirx.Select(at_zero, one, b)
        return tirx.Select(at_zero, zero, function(a, safe))
    at_minus_one = b.equal(tirx.const(-1, dtype))
    safe = tirx.Select(tirx.Or(at_zero, at_minus_one), one, b)
    result = tirx.Select(at_minus_one, by_minus_one(a), function(a, safe))
    return tirx.Select(at_zero, zero, result)


def _truncated_quotient(a: Expr, b: Expr) -> Expr:
    """Up to 32 bits through float64, which is exact and has vector instructions."""
    if width(a) > 32 or literal_value(b) is not None:
        return tirx.truncdiv(a, b)
    return cast(cast(cast(a, "float64") / cast(b, "float64"), "int64"), dtype_of(a))


def maximum(a: Expr, b: Expr) -> Expr:
    return floats.maximum(a, b) if is_float(a) else tirx.max(a, b)


def minimum(a: Expr, b: Expr) -> Expr:
    return floats.minimum(a, b) if is_float(a) else tirx.min(a, b)


def equal(a: Expr, b: Expr) -> Expr:
    """Equality; NaN differs from itself."""
    if dtype_of(a) == "bool":
        return tirx.Not(differ(a, b))
    if is_float(a) and tvm_ffi.structural_equal(a, b):
        return tirx.Not(floats.is_nan(a))
    return a.equal(b)


def differ(a: Expr, b: Expr) -> Expr:
    """Exclusive or of truth values, which TVM would compare as floats."""
    return tirx.NE(tirx.Cast("int8", a), tirx.Cast("int8", b))


def sign(a: Expr) -> Expr:
    """-1, 0 or 1; NaN stays NaN."""
    zero, one = tirx.const(0, dtype_of(a)), tirx.const(1, dtype_of(a))
    if is_unsigned(a):
        return tirx.Select(a > zero, one, zero)
    return tirx.Select(a > zero, one, tirx.Select(a < zero, tirx.const(-1, dtype_of(a)), a))


def shift(a: Expr, by: Expr, left: bool) -> Expr:
    """Shifts of integers; amounts below 0 or of all bits leave the sign (0 for left shifts)."""
    dtype, bits = dtype_of(a), width(a)
    zero, last = tirx.const(0, dtype), tirx.const(bits - 1, dtype)
    outside = by > last
    if not is_unsigned(a):
        outside = tirx.Or(outside, by < zero)
    safe = tirx.Select(outside, last, by)
    if not left and not is_unsigned(a):
        return tirx.shift_right(a, safe)
    shifted = tirx.shift_left(a, safe) if left else tirx.shift_right(a, safe)
    return tirx.Select(outside, zero, shifted)


def convert(value: Expr, to: str) -> Expr:
    """``value`` in another compute dtype as C converts it, except that bool means "not zero".

    A float outside the integer's range gives some integer.
    """
    source = dtype_of(value)
    if source == to:
        return value
    if to == "bool":
        return tirx.NE(value, tirx.const(0, source))
    if is_float(value) and to in ("int8", "uint8", "int16", "uint16"):
        return tirx.Cast(to, tirx.Cast("int32", value))
    if is_float(value) and to in ("uint32", "uint64"):
        return tirx.Cast(to, tirx.Cast("int64", value)) if to == "uint32" else _to_uint64(value)
    return tirx.Cast(to, value)


def _to_uint64(value: Expr) -> Expr:
    """Negative numbers wrap as they do for the other unsigned types."""
    negative = value < tirx.const(0, dtype_of(value))
    wrapped = tirx.Cast("uint64", tirx.Cast("int64", value))
    return tirx.Select(negative, wrapped, tirx.Cast("uint64", value))


def integer_power(b: Builder, x: Expr, y: Expr) -> Expr:
    """``x`` to the power ``y`` for 64-bit integers, wrapping around.

    A negative exponent gives what truncating division of 1 by the power gives.
    """
    zero, one = tirx.const(0, "int64"), tirx.const(1, "int64")
    base, left, result = b.scalar("int64", x), b.scalar("int64", y), b.scalar("int64", one)
    with b.while_(left.get() > zero):
        odd = tirx.bitwise_and(left.get(), one).equal(one)
        result.set(tirx.Select(odd, result.get() * base.get(), result.get()))
        base.set(base.get() * base.get())
        left.set(tirx.shift_right(left.get(), one))
    even = tirx.bitwise_and(y, one).equal(zero)
    minus_one = tirx.const(-1, "int64")
    mirrored = tirx.Select(x.equal(minus_one), tirx.Select(even, one, minus_one), zero)
    inverse = tirx.Select(x.equal(one), one, mirrored)
    return b.let(tirx.Select(y < zero, inverse, result.get()))
