"""Powers and inverse hyperbolic functions of float32, computed in float64 and rounded once.

A vector of float64 has half as many lanes, but the code needs no compensation of rounding errors: a
logarithm with a relative error of 3e-14 is precise enough for any float32 power.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from .builder import Builder
from .floats import (
    absolute,
    at_least,
    at_most,
    bits_of,
    constant,
    convert,
    from_bits,
    horner,
    infinity,
    is_double,
    is_nan,
    libm,
    nan,
    negate,
    sign_bit,
    subtract,
    with_sign,
)
from .numeric import dtype_of

Expr = Any

LN_2 = 0.6931471805599453
# Adding this to a small float64 leaves its nearest integer in the low bits, as with ROUNDER.
WIDE_ROUNDER = 6755399441055744.0

# log2(m) / s in s^2, where s = (m - 1) / (m + 1), for m in [sqrt(1/2), sqrt(2)]
_LOG2 = (2.885390081777849, 0.9617966941150896, 0.5770779418064043, 0.41220931344298956,
         0.3199030189330287, 0.28294071363476375)  # fmt: skip
# 2^g for |g| <= 1/2
_EXP2 = (0.9999999999613786, 0.6931471807297956, 0.2402265120114972, 0.055504103503679694,
         0.00961802684849984, 0.0013333924022040182, 0.00015469422077528201,
         1.5201819750863474e-05)  # fmt: skip


def pow(b: Builder, x: Expr, y: Expr) -> Expr:
    """``x`` to the power ``y``, with the special values of C's ``pow``."""
    if is_double(x):
        return libm("pow", x, y)
    x, y = b.let(convert(x, "float64")), b.let(convert(y, "float64"))
    zero, one = constant(0.0, x), constant(1.0, x)
    magnitude = b.let(absolute(x))
    power = b.let(_exp2(b, b.let(y * _log2(b, magnitude))))
    half = b.let(y * constant(0.5, x))
    whole = b.let(tirx.floor(y).equal(y))
    odd = tirx.And(whole, tirx.NE(tirx.floor(half), half))
    flipped = from_bits(tirx.bitwise_xor(bits_of(power), sign_bit(x)))
    real = tirx.Or(tirx.Or(x >= zero, whole), magnitude.equal(infinity(x)))
    undefined = tirx.Or(is_nan(x), tirx.Not(tirx.Or(real, magnitude.equal(zero))))
    signed = tirx.Select(undefined, nan(x), tirx.Select(odd, flipped, power))
    mirror = tirx.And(magnitude.equal(one), absolute(y).equal(infinity(y)))
    at_one = tirx.Or(x.equal(one), mirror)
    return convert(tirx.Select(tirx.Or(y.equal(zero), at_one), one, signed), "float32")


def _log2(b: Builder, x: Expr) -> Expr:
    """The base-2 logarithm of a float64 that is 0, normal or infinite and not negative."""
    bits = b.let(bits_of(x))
    integer = dtype_of(bits)
    n = b.let(
        tirx.shift_right(bits - tirx.const(0x3FE6A09E667F3BCD, integer), tirx.const(52, integer))
    )
    m = b.let(from_bits(bits - tirx.shift_left(n, tirx.const(52, integer))))
    s = b.let(subtract(m, constant(1.0, x)) / (m + constant(1.0, x)))
    result = s * horner(_LOG2, b.let(s * s)) + convert(convert(n, "int32"), "float64")
    result = tirx.Select(x < infinity(x), result, x)
    return b.let(tirx.Select(x > constant(0.0, x), result, negate(infinity(x))))


def _exp2(b: Builder, t: Expr) -> Expr:
    """2 to the power of a float64; only the range of float32 counts."""
    t = b.let(at_least(b.let(at_most(t, 300.0)), -300.0))
    s = b.let(t + constant(WIDE_ROUNDER, t))
    g = b.let(subtract(t, subtract(s, constant(WIDE_ROUNDER, t))))
    bits = bits_of(s)
    integer = dtype_of(bits)
    exponent = tirx.shift_left(bits, tirx.const(52, integer)) + tirx.const(1023 << 52, integer)
    return horner(_EXP2, g) * from_bits(exponent)


def asinh(b: Builder, x: Expr) -> Expr:
    """The inverse hyperbolic sine."""
    if is_double(x):
        return libm("asinh", x)
    wide = b.let(convert(x, "float64"))
    a = b.let(absolute(wide))
    grown = b.let(a + tirx.sqrt(a * a + constant(1.0, a)))
    large = _log2(b, grown) * constant(LN_2, a)
    small = a + a * a * a * constant(-1 / 6, a)
    magnitude = b.let(tirx.Select(a < constant(1e-4, a), small, large))
    magnitude = tirx.Select(is_nan(wide), wide, magnitude)
    return convert(with_sign(magnitude, wide), "float32")


def acosh(b: Builder, x: Expr) -> Expr:
    """The inverse hyperbolic cosine; NaN below 1."""
    if is_double(x):
        return libm("acosh", x)
    x = b.let(convert(x, "float64"))
    one = constant(1.0, x)
    grown = b.let(x + tirx.sqrt(at_least(b.let(x * x + constant(-1.0, x)), 0.0)))
    result = _log2(b, grown) * constant(LN_2, x)
    return convert(tirx.Select(x >= one, result, nan(x)), "float32")


def atanh(b: Builder, x: Expr) -> Expr:
    """The inverse hyperbolic tangent; infinite at -1 and 1, NaN beyond."""
    if is_double(x):
        return libm("atanh", x)
    wide = b.let(convert(x, "float64"))
    a = b.let(absolute(wide))
    one = constant(1.0, a)
    ratio = b.let((one + a) / subtract(one, a))
    large = _log2(b, ratio) * constant(0.5 * LN_2, a)
    small = a + a * a * a * constant(1 / 3, a)
    magnitude = b.let(tirx.Select(a < constant(1e-4, a), small, large))
    magnitude = tirx.Select(a <= one, magnitude, nan(a))
    return convert(with_sign(magnitude, wide), "float32")
