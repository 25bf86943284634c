"""Division with ONNX's semantics for every element type.

Integers truncate, and give 0 for a divisor of 0, instead of a trap; the smallest number by -1 wraps
around. Floats follow NumPy. Operands have the same compute dtype, and are variables or literals.

CPUs divide integers one at a time. Vectors of floats are divided instead, where that is faster: see
`_float_quotient` and `_WideDivision`.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from . import floats
from .arithmetic import (
    bind,
    differ,
    is_float,
    is_unsigned,
    literal_value,
    subtract,
    width,
    wrapping,
)
from .builder import Builder
from .numeric import cast, dtype_of

Expr = Any

_ROUNDER = 3 << 51
"""1.5 * 2^52: added to it, a float64 below 2^51 is rounded to an integer, in the low bits."""
_ROUNDER_BITS = 0x4338 << 48
_LANES = 4
"""The doubles of a vector from which on dividing them is faster than dividing integers."""


def divide(builder: Builder, a: Expr, b: Expr) -> Expr:
    """The quotient; that of integers is truncated towards zero."""
    if is_float(a):
        return floats.divide(a, b)
    if literal_value(b) is not None:
        return tirx.truncdiv(a, b) if literal_value(b) else tirx.const(0, dtype_of(a))
    if width(a) <= 32:
        return _unless_zero(b, _float_quotient(builder, a, b))
    if _by_vectors(builder, a):
        return _unless_zero(b, _WideDivision(builder, a, b).quotient)
    return tirx.truncdiv(a, _safe_divisor(builder, b)) * _correction(b)


def remainder(builder: Builder, a: Expr, b: Expr) -> Expr:
    """The remainder of truncating division, with the dividend's sign (C's ``fmod``)."""
    if is_float(a):
        name = "fmod" if floats.is_double(a) else "fmodf"
        return tirx.call_pure_extern(dtype_of(a), name, a, b)
    if literal_value(b) in (-1, 0, 1):
        return tirx.const(0, dtype_of(a))
    if literal_value(b) is not None:
        return tirx.truncmod(a, b)
    if width(a) <= 32:
        quotient = bind(builder, _float_quotient(builder, a, b))
        return _unless_zero(b, subtract(a, wrapping(lambda x, y: x * y, quotient, b)))
    if _by_vectors(builder, a):
        return _unless_zero(b, _WideDivision(builder, a, b).rest)
    # A divisor of 0 or -1 has become 1, which leaves 0.
    return tirx.truncmod(a, _safe_divisor(builder, b))


def modulo(builder: Builder, a: Expr, b: Expr) -> Expr:
    """The remainder of flooring division, with the divisor's sign (NumPy's ``mod``)."""
    zero = tirx.const(0, dtype_of(a))
    rest = bind(builder, remainder(builder, a, b))
    if is_unsigned(a):
        return rest
    differs = differ(rest < zero, b < zero)
    if is_float(a):
        moved = tirx.Select(differs, rest + b, rest)
        return tirx.Select(rest.equal(zero), floats.with_sign(zero, b), moved)
    return tirx.Select(tirx.And(tirx.NE(rest, zero), differs), rest + b, rest)


def _unless_zero(divisor: Expr, result: Expr) -> Expr:
    zero = tirx.const(0, dtype_of(result))
    return tirx.Select(divisor.equal(tirx.const(0, dtype_of(divisor))), zero, result)


def _float_quotient(builder: Builder, a: Expr, b: Expr) -> Expr:
    """The quotient of integers of up to 32 bits, through float64; anything for a divisor of 0.

    A quotient that is no integer differs from the next one by 2^-32 of it or more. So the product
    with the reciprocal, off by 2^-52 at most, is exact if it is made larger by 2^-40 and cut off.
    The reciprocal of a divisor of all elements is computed once.

    The low bits of the sum with a constant are the integer, cut to its width: no conversion, which
    may be out of range.
    """
    inverse = bind(builder, _double(1 + 2.0**-40) / cast(b, "float64"))
    cut = tirx.trunc(bind(builder, cast(a, "float64") * inverse))
    return tirx.Cast(dtype_of(a), _low_bits(cut + _double(_ROUNDER)))


def _low_bits(value: Expr) -> Expr:
    return tirx.reinterpret("int64", value)


def _double(value: float) -> Expr:
    return tirx.const(float(value), "float64")


def _by_vectors(builder: Builder, a: Expr) -> bool:
    return not is_unsigned(a) and builder.loops.vector_bytes >= 8 * _LANES


class _WideDivision:
    """Quotient and remainder of int64 through float64, exact for all numbers but a divisor of 0.

    With the reciprocal 1/b and the product rounded, the first estimate q of a/b is off by at most
    1/2 + 2^-51 |a/b| <= 1/2 + 2^12. So r = a - q b is small enough that an estimate of r/b is the
    nearest integer to it, or the next one where it lies in the middle: now |r| < |b|. If r has not
    the sign of a, the quotient moves by one, towards zero. All sums and products wrap around.
    """

    def __init__(self, builder: Builder, a: Expr, b: Expr) -> None:
        self._b = builder
        inverse = self._let(_double(1.0) / self._to_double(b))
        first = self._let(self._to_integer(self._let(self._to_double(a) * inverse)))
        rest = self._let(self._less_product(a, first, b))
        rounded = self._to_double(rest) * inverse + _double(_ROUNDER)
        second = self._let(wrapping(_difference, _low_bits(rounded), _wide(_ROUNDER_BITS)))
        rest = self._let(self._less_product(rest, second, b))
        quotient = self._let(wrapping(_sum, first, second))
        self._settle(a, b, quotient, rest)

    def _settle(self, a: Expr, b: Expr, quotient: Expr, rest: Expr) -> None:
        """Truncate: let the remainder be 0 or have the sign of ``a``."""
        zero = _wide(0)
        wrong = tirx.And(tirx.NE(rest, zero), tirx.bitwise_xor(rest, a) < zero)
        step = self._let(tirx.Select(tirx.bitwise_xor(a, b) < zero, _wide(-1), _wide(1)))
        moved = wrapping(_sum, rest, wrapping(_product, step, b))
        self.quotient = tirx.Select(wrong, wrapping(_difference, quotient, step), quotient)
        self.rest = tirx.Select(wrong, moved, rest)

    def _let(self, value: Expr) -> Expr:
        return bind(self._b, value)

    def _less_product(self, a: Expr, x: Expr, y: Expr) -> Expr:
        return wrapping(_difference, a, self._let(wrapping(_product, x, y)))

    def _to_double(self, x: Expr) -> Expr:
        """The nearest float64, by both halves of ``x``: AVX2 has no such instruction.

        A half in the low bits of 2^52 or 2^84 is a float64 without a conversion. The high half is
        made unsigned by flipping its sign, which adds 2^63 to ``x``.
        """
        raw = self._let(tirx.reinterpret("uint64", x))
        low = tirx.bitwise_or(tirx.bitwise_and(raw, _raw(2**32 - 1)), _raw(0x433 << 52))
        high = tirx.bitwise_xor(tirx.shift_right(raw, _raw(32)), _raw(0x4530000080000000))
        high = tirx.reinterpret("float64", high) - _double(2**84 + 2**63 + 2**52)
        return self._let(high + tirx.reinterpret("float64", low))

    def _to_integer(self, x: Expr) -> Expr:
        """The nearest int64, wrapping around; AVX2 has no such instruction either.

        Each half is rounded by a sum, in whose low bits it is found.
        """
        rounder = _double(_ROUNDER)
        high = self._let(x * _double(2.0**-32) + rounder)
        low = x - (high - rounder) * _double(2.0**32) + rounder
        shifted = tirx.shift_left(_low_bits(high), _wide(32))
        return wrapping(_sum, shifted, wrapping(_difference, _low_bits(low), _wide(_ROUNDER_BITS)))


def _wide(value: int) -> Expr:
    return tirx.const(value, "int64")


def _raw(value: int) -> Expr:
    return tirx.const(value, "uint64")


def _sum(a: Expr, b: Expr) -> Expr:
    return a + b


def _difference(a: Expr, b: Expr) -> Expr:
    return a - b


def _product(a: Expr, b: Expr) -> Expr:
    return a * b


def _safe_divisor(builder: Builder, b: Expr) -> Expr:
    """``b``, or 1 if dividing a 64-bit integer by it may trap (0 and -1).

    It is stored in memory, where the simplifier does not see its value. Otherwise, inside a
    ``Select`` whose condition says that ``b`` is not 0, the simplifier would drop this guard,
    although both arms of a ``Select`` are evaluated.
    """
    bad = b.equal(tirx.const(0, dtype_of(b)))
    if not is_unsigned(b):
        bad = tirx.Or(bad, b.equal(tirx.const(-1, dtype_of(b))))
    safe = tirx.Select(bad, tirx.const(1, dtype_of(b)), b)
    return bind(builder, safe)


def _correction(b: Expr) -> Expr:
    """The factor that corrects a quotient by the safe divisor: 0 for 0, -1 for -1, else 1."""
    dtype = dtype_of(b)
    factor = tirx.const(1, dtype) - cast(b.equal(tirx.const(0, dtype)), dtype)
    if is_unsigned(b):
        return factor
    return factor - tirx.const(2, dtype) * cast(b.equal(tirx.const(-1, dtype)), dtype)
