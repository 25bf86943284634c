"""Scalar arithmetic with ONNX's semantics for every element type.

Operands have the same compute dtype. Integers wrap around; floats follow NumPy, NaN included. An
operand may appear several times in the result, so bind costly ones to variables first. Division is
in `division`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
import tvm_ffi
from tvm import tirx

from . import floats
from .builder import Builder
from .numeric import dtype_of

Expr = Any


def is_float(value: Expr) -> bool:
    return dtype_of(value).startswith("float")


def is_unsigned(value: Expr) -> bool:
    return dtype_of(value).startswith("uint")


def width(value: Expr) -> int:
    """Bits of a scalar's dtype."""
    return int(tvm.DataType(dtype_of(value)).bits)


def literal_value(value: Expr) -> float | None:
    """The value of a literal; None for other expressions."""
    if isinstance(value, tirx.IntImm | tirx.FloatImm):
        return value.value
    return None


def wrapping(function: Callable[[Expr, Expr], Expr], a: Expr, b: Expr) -> Expr:
    """The result of integer arithmetic that wraps around.

    TVM and LLVM assume that integers of 32 bits and more never overflow, so that ``x * 2 / 2``
    becomes ``x``. Therefore the operation is done in twice as many bits and cut back to the
    original width, which LLVM turns into plain instructions.
    """
    dtype = dtype_of(a)
    if is_float(a) or width(a) < 32:
        return function(a, b)
    wide = f"int{2 * width(a)}"
    return tirx.Cast(dtype, function(tirx.Cast(wide, a), tirx.Cast(wide, b)))


def bind(builder: Builder, value: Expr) -> Expr:
    """A variable for a tensor's element, so that it is computed once.

    ``Builder.let`` takes int64 values for indices. It binds these and truth values to TVM
    variables, which TVM substitutes back wherever they are used, so a long chain of elements would
    grow exponentially. This function stores them in memory instead.
    """
    if literal_value(value) is None and dtype_of(value) == "bool":
        return tirx.NE(builder.let(tirx.Cast("uint8", value)), tirx.const(0, "uint8"))
    return builder.element(value)


def add(a: Expr, b: Expr) -> Expr:
    return wrapping(lambda x, y: x + y, a, b)


def subtract(a: Expr, b: Expr) -> Expr:
    if is_float(a):
        return floats.subtract(a, b)
    return wrapping(lambda x, y: x - y, a, b)


def multiply(a: Expr, b: Expr) -> Expr:
    if is_float(a):
        return floats.keep_zero(a) * floats.keep_zero(b)
    return wrapping(lambda x, y: x * y, a, b)


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
    """Shifts of integers, for any amount.

    Shifts by less than 0 or by all bits give 0, but -1 for a negative number shifted right.
    """
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
        nonzero = tirx.NE(value, tirx.const(0, source))
        return tirx.Or(nonzero, floats.is_nan(value)) if is_float(value) else nonzero
    if is_float(value) and to in ("int8", "uint8", "int16", "uint16"):
        return tirx.Cast(to, tirx.Cast("int32", value))
    if is_float(value) and to in ("uint32", "uint64"):
        return tirx.Cast(to, tirx.Cast("int64", value)) if to == "uint32" else _to_uint64(value)
    return tirx.Cast(to, value)


def _to_uint64(value: Expr) -> Expr:
    """Negative numbers wrap around, as they do for the other unsigned types."""
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
