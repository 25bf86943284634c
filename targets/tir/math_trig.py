"""Trigonometric functions and their inverses.

Multiples of pi/2 are subtracted from arguments in float64, so float32 results are good to a few
units in the last place for ``|x| < 2^20`` (``2^28`` with fused multiply-add). Far beyond that,
neighbouring floats are many periods apart; the result is then between -1 and 1, with no accuracy
promised.
"""

from __future__ import annotations

import math
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
    is_double,
    libm,
    negate,
    sign_bit,
    subtract,
    with_sign,
)
from .math_power import WIDE_ROUNDER
from .numeric import dtype_of

Expr = Any

# pi/2 in two parts; products of the first with 20-bit integers are exact.
_HALF_PI_HIGH, _HALF_PI_LOW = 1.57079632673412561417, 6.07710050650619224932e-11
# The same split for float32 sums.
_NARROW_HALF_PI, _NARROW_REST = 1.5707963705062866, -4.371139000186241e-08

# (sin(r) - r) / r^3 and (cos(r) - 1 + r^2 / 2) / r^4, in r^2, for |r| <= pi/4
_SIN = (-0.1666666716337204, 0.008333379402756691, -0.00019853065896313637, 2.832548943842994e-06)
_COS = (0.0416666679084301, -0.0013888980029150844, 2.4822014893288724e-05,
        -2.887984749122552e-07)  # fmt: skip
# (asin(x) - x) / x^3 in x^2 for x <= 1/2
_ASIN = (0.16666753590106964, 0.07495249062776566, 0.04547690227627754, 0.024145247414708138,
         0.042227886617183685)  # fmt: skip
# (atan(x) - x) / x^3 in x^2 for x <= 1
_ATAN = (-0.33333298563957214, 0.1999852955341339, -0.14264015853405, 0.10950880497694016,
         -0.08399305492639542, 0.05788133665919304, -0.03109685704112053, 0.010868553072214127,
         -0.0017827722476795316)  # fmt: skip


def sin(b: Builder, x: Expr) -> Expr:
    """The sine of an angle in radians."""
    if is_double(x):
        return libm("sin", x)
    quadrant, r = _reduce(b, x)
    return _sine_of(b, quadrant, r)


def cos(b: Builder, x: Expr) -> Expr:
    """The cosine of an angle in radians."""
    if is_double(x):
        return libm("cos", x)
    quadrant, r = _reduce(b, x)
    return _sine_of(b, b.let(quadrant + tirx.const(1, dtype_of(quadrant))), r)


def tan(b: Builder, x: Expr) -> Expr:
    """The tangent of an angle in radians."""
    if is_double(x):
        return libm("tan", x)
    quadrant, r = _reduce(b, x)
    s, c = b.let(_sine(b, r)), b.let(_cosine(b, r))
    odd = b.let(_bit(quadrant, 0))
    return tirx.Select(odd, negate(c), s) / tirx.Select(odd, s, c)


def _reduce(b: Builder, x: Expr) -> tuple[Expr, Expr]:
    """The number n (an int32, modulo 4) for which ``n * pi/2`` is nearest to ``x``, and the float32
    rest.
    """
    wide = b.let(convert(x, "float64"))
    s = b.let(wide * constant(2 / math.pi, wide) + constant(WIDE_ROUNDER, wide))
    n = b.let(subtract(s, constant(WIDE_ROUNDER, wide)))
    r = b.let(wide + n * constant(-_HALF_PI_HIGH, wide))
    r = b.let(convert(r + n * constant(-_HALF_PI_LOW, wide), "float32"))
    r = b.let(at_least(b.let(at_most(r, 0.7854)), -0.7854))
    bits = bits_of(s)
    low = tirx.bitwise_and(bits, tirx.const(3, dtype_of(bits)))
    return b.let(convert(low, "int32")), r


def _bit(value: Expr, position: int) -> Expr:
    mask = tirx.const(1 << position, dtype_of(value))
    return tirx.bitwise_and(value, mask).equal(mask)


def _sine_of(b: Builder, quadrant: Expr, r: Expr) -> Expr:
    magnitude = tirx.Select(_bit(quadrant, 0), _cosine(b, r), _sine(b, r))
    flip = tirx.bitwise_and(quadrant, tirx.const(2, dtype_of(quadrant)))
    sign = tirx.shift_left(flip, tirx.const(30, dtype_of(flip)))
    return from_bits(tirx.bitwise_xor(bits_of(magnitude), sign))


def _sine(b: Builder, r: Expr) -> Expr:
    square = b.let(r * r)
    return r + (r * square) * horner(_SIN, square)


def _cosine(b: Builder, r: Expr) -> Expr:
    square = b.let(r * r)
    bend = square * constant(-0.5, r) + (square * square) * horner(_COS, square)
    return constant(1.0, r) + bend


def asin(b: Builder, x: Expr) -> Expr:
    """The inverse sine; NaN outside [-1, 1]."""
    if is_double(x):
        return libm("asin", x)
    x = b.let(x)
    big, p = _arc(b, absolute(x))
    folded = _from_half_pi(p * constant(2.0, x))
    return with_sign(b.let(tirx.Select(big, folded, p)), x)


def acos(b: Builder, x: Expr) -> Expr:
    """The inverse cosine; NaN outside [-1, 1]."""
    if is_double(x):
        return libm("acos", x)
    x = b.let(x)
    big, p = _arc(b, absolute(x))
    negative = b.let(x < constant(0.0, x))
    double = b.let(p * constant(2.0, x))
    pi = subtract(constant(2 * _NARROW_HALF_PI, x), double) + constant(2 * _NARROW_REST, x)
    near_one = tirx.Select(negative, pi, double)
    central = _from_half_pi(from_bits(tirx.bitwise_or(bits_of(p), sign_bit(x))))
    return tirx.Select(big, near_one, central)


def _arc(b: Builder, a: Expr) -> tuple[Expr, Expr]:
    """``a > 1/2``, and ``asin(a)`` if it is false, ``asin(sqrt((1 - a) / 2))`` if it is true."""
    a = b.let(a)
    big = b.let(a > constant(0.5, a))
    folded = subtract(constant(1.0, a), a) * constant(0.5, a)
    square = b.let(tirx.Select(big, folded, a * a))
    s = b.let(tirx.Select(big, tirx.sqrt(square), a))
    return big, b.let(s + (s * square) * horner(_ASIN, square))


def _from_half_pi(value: Expr) -> Expr:
    """``pi/2 - value`` with pi/2 in two parts."""
    rest = constant(_NARROW_REST, value)
    return subtract(constant(_NARROW_HALF_PI, value), subtract(value, rest))


def atan(b: Builder, x: Expr) -> Expr:
    """The inverse tangent."""
    if is_double(x):
        return libm("atan", x)
    x = b.let(x)
    a = b.let(absolute(x))
    big = b.let(a > constant(1.0, x))
    t = b.let(tirx.Select(big, constant(1.0, x) / a, a))
    square = b.let(t * t)
    p = b.let(t + (t * square) * horner(_ATAN, square))
    return with_sign(b.let(tirx.Select(big, _from_half_pi(p), p)), x)
