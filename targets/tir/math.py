"""Exponentials, logarithms and the functions built of them, as straight-line expressions.

Each function takes the builder (for bindings) and float32 or float64 operands and returns an
expression of the same type; NaN gives NaN. For float32 nothing is called: the code is arithmetic
that LLVM vectorises, and vector operands work too. For float64 the C library's function is called.

Bounds of the error for float32 operands, in units in the last place of the float32 result, as
tests measure them against float64, with and without fused multiply-add ("flushed": results below
the smallest normal number, 1.2e-38, may be 0):

    exp 1.1   exp_flush 1.1 (flushed; infinite above 2.3e38)   expm1 1.9   log 1.0   pow 0.51
    sigmoid 2.6 (flushed)   softplus 2.5 (flushed)   tanh 6   erf 6   sinh 2.2   cosh 1.7
    asinh, acosh, atanh 0.6   sin, cos 1.7   tan 3.3   asin 2.5   acos 1.6   atan 1.7

Polynomials are minimax fits on the reduced interval, with coefficients rounded one by one to
float32 and the rest fitted again.
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
    libm,
    nan,
    negate,
    subtract,
    with_sign,
)
from .math_power import acosh, asinh, atanh, pow
from .math_trig import acos, asin, atan, cos, sin, tan
from .numeric import dtype_of

Expr = Any

LOG2_E = 1.4426950408889634
LN2 = 0.6931471805599453
# ln 2 in two parts; the first has so few bits that its product with an exponent is exact.
LN2_HIGH, LN2_LOW = 0.693359375, -2.12194440e-4
# Adding this to a small float32 leaves its nearest integer in the low bits of the sum.
ROUNDER = 12582912.0

# (exp(r) - 1 - r) / r^2 on |r| <= ln(2) / 2
_EXP = (0.4999999701976776, 0.1666654646396637, 0.04166743531823158, 0.00836626160889864,
        0.0013870657421648502)  # fmt: skip
# The same with one coefficient less, whose error is 1.1e-7.
_EXP_SHORT = (0.499992311000824, 0.16667117178440094, 0.041890256106853485, 0.008312332443892956)
# (log(1 + f) - f + f^2 / 2) / f^3 on [sqrt(1/2) - 1, sqrt(2) - 1]
_LOG = (0.3333333134651184, -0.250008225440979, 0.20001250505447388, -0.1662331521511078,
        0.14201273024082184, -0.13160189986228943, 0.12764762341976166,
        -0.07638184726238251)  # fmt: skip
# tanh(x) / x as a quotient of polynomials in x^2 on |x| <= 9.01
_TANH_TOP = (0.9999999792358771, 0.13380369400342307, 0.0034948085426228857,
             2.0596236437001404e-05, 1.3336802895481697e-08)  # fmt: skip
_TANH_BOTTOM = (1.0, 0.46713684816050904, 0.025874016951433255, 0.0003284359292967885,
                7.769263102513787e-07)  # fmt: skip
# erf(x) / x likewise on |x| <= 3.95
_ERF_TOP = (1.1283791437397312, 0.19154977566335135, 0.0528753893442151, 0.0038081437624563376,
            0.00028468817149648147, 2.0259220651342613e-06)  # fmt: skip
_ERF_BOTTOM = (1.0, 0.5030892443019493, 0.11455941528758354, 0.015055051624676996,
               0.0011707231360336917, 3.783197247595142e-05)  # fmt: skip
# (sinh(x) - x) / x^3 in x^2 on |x| <= 1
_SINH = (0.1666666716337204, 0.00833331048488617, 0.00019842895562760532, 2.7822131869470468e-06)


def exp(b: Builder, x: Expr) -> Expr:
    """e to the power ``x``."""
    if is_double(x):
        return libm("exp", x)
    reduced, r = _exp_reduce(b, at_least(b.let(at_most(x, 90.0)), -104.0))
    return _scale_twice(b, _exp_core(b, r) + constant(1.0, x), _exponent(reduced))


def exp_flush(b: Builder, x: Expr) -> Expr:
    """:func:`exp` in fewer steps; the result is 0 below 2^-126.5 and infinity above 2^127.5."""
    if is_double(x):
        return libm("exp", x)
    reduced, r = _exp_reduce(b, at_least(b.let(at_most(x, 89.0)), -88.0))
    bits = bits_of(reduced)
    shifted = tirx.shift_left(bits, tirx.const(23, dtype_of(bits)))
    scale = from_bits(shifted + tirx.const(0x3F800000, dtype_of(bits)))
    return (_exp_core(b, r) + constant(1.0, x)) * scale


def exp_difference(b: Builder, x: Expr, y: Expr) -> Expr:
    """``exp(x - y)`` of float32 for ``x <= y``; differences below -87 count as -87.

    5 ULP from the exponential of the rounded difference, 70 without fused multiply-add.
    """
    d = b.let(at_least(b.let(subtract(x, y)), -87.0))
    s = b.let(d * constant(LOG2_E, x) + constant(ROUNDER, x))
    n = b.let(subtract(s, constant(ROUNDER, x)))
    r = b.let(d + n * constant(-LN2, x))
    one = constant(1.0, x)
    power = b.let(r * (r * horner(_EXP_SHORT, r) + one) + one)
    bits = bits_of(s)
    shifted = tirx.shift_left(bits, tirx.const(23, dtype_of(bits)))
    # A product is used, since adding to the bits of a NaN could make a number of it.
    return power * from_bits(shifted + tirx.const(0x3F800000, dtype_of(bits)))


def expm1(b: Builder, x: Expr) -> Expr:
    """``exp(x) - 1`` without cancellation near 0."""
    if is_double(x):
        return libm("expm1", x)
    x = b.let(x)
    reduced, r = _exp_reduce(b, at_least(b.let(at_most(x, 90.0)), -104.0))
    exponent = _exponent(reduced)
    core = b.let(_exp_core(b, r))
    # 2^n (core + 1) - 1, in an order that keeps core's low bits where n is 0.
    power = b.let(_scale_twice(b, constant(1.0, x), exponent))
    near = core * power + subtract(power, constant(1.0, x))
    far = _scale_twice(b, core + constant(1.0, x), exponent)
    result = tirx.Select(x > constant(80.0, x), far, near)
    return tirx.Select(x.equal(constant(0.0, x)), x, result)


def _exp_reduce(b: Builder, x: Expr) -> tuple[Expr, Expr]:
    """``(s, r)`` with ``x = n ln 2 + r``; the low bits of the float ``s`` hold ``n``."""
    x = b.let(x)
    s = b.let(x * constant(LOG2_E, x) + constant(ROUNDER, x))
    n = b.let(subtract(s, constant(ROUNDER, x)))
    r = b.let(x + n * constant(-LN2_HIGH, x))
    return s, b.let(r + n * constant(-LN2_LOW, x))


def _exp_core(b: Builder, r: Expr) -> Expr:
    """``exp(r) - 1`` on the reduced interval."""
    return r + (r * r) * horner(_EXP, r)


def _exponent(s: Expr) -> Expr:
    bits = bits_of(s)
    return bits - tirx.const(0x4B400000, dtype_of(bits))


def _scale_twice(b: Builder, value: Expr, n: Expr) -> Expr:
    """``value * 2^n`` in two steps, so that both powers are normal numbers."""
    n = b.let(n)
    half = b.let(tirx.shift_right(n, tirx.const(1, dtype_of(n))))
    return (value * _power_of_two(half)) * _power_of_two(n - half)


def _power_of_two(n: Expr) -> Expr:
    return from_bits(tirx.shift_left(n + tirx.const(127, dtype_of(n)), tirx.const(23, dtype_of(n))))


def log(b: Builder, x: Expr) -> Expr:
    """The natural logarithm; -inf at 0, NaN below."""
    if is_double(x):
        return libm("log", x)
    x = b.let(x)
    tiny = b.let(x < constant(1.17549435e-38, x))
    bits = b.let(bits_of(tirx.Select(tiny, x * constant(8388608.0, x), x)))
    integer = dtype_of(bits)
    # Exponents are counted from sqrt(1/2), so that the mantissa is between sqrt(1/2) and sqrt(2).
    n = tirx.shift_right(bits - tirx.const(0x3F3504F3, integer), tirx.const(23, integer))
    n = b.let(n)
    m = from_bits(bits - tirx.shift_left(n, tirx.const(23, integer)))
    f = b.let(subtract(m, constant(1.0, x)))
    adjust = tirx.Select(tiny, constant(-23.0, x), constant(0.0, x))
    k = b.let(convert(n, "float32") + adjust)
    result = k * constant(LN2_HIGH, x) + (f + (k * constant(LN2_LOW, x) + _log_tail(b, f)))
    finite = tirx.Select(x < infinity(x), result, x)
    at_zero = tirx.Select(x.equal(constant(0.0, x)), negate(infinity(x)), nan(x))
    return tirx.Select(x > constant(0.0, x), finite, at_zero)


def _log_tail(b: Builder, f: Expr) -> Expr:
    """``log(1 + f) - f`` on the reduced interval."""
    square = b.let(f * f)
    return (square * f) * horner(_LOG, f) + square * constant(-0.5, f)


def softplus(b: Builder, x: Expr) -> Expr:
    """``log(1 + exp(x))``."""
    x = b.let(x)
    positive = tirx.Select(x < constant(0.0, x), constant(0.0, x), x)
    u = b.let(exp_flush(b, negate(absolute(x))))
    if is_double(x):
        return positive + libm("log1p", u)
    # 1 + u is in [1, 2]; above sqrt(2), log of half of it plus log 2 is computed.
    big = b.let(u > constant(0.41421356, x))
    f = b.let(tirx.Select(big, subtract(u, constant(1.0, x)) * constant(0.5, x), u))
    zero = constant(0.0, x)
    tail = _log_tail(b, f) + tirx.Select(big, constant(LN2_LOW, x), zero)
    return positive + ((f + tail) + tirx.Select(big, constant(LN2_HIGH, x), zero))


def sigmoid(b: Builder, x: Expr) -> Expr:
    """``1 / (1 + exp(-x))``."""
    one = constant(1.0, x)
    return one / (one + exp_flush(b, negate(x)))


def tanh(b: Builder, x: Expr) -> Expr:
    """The hyperbolic tangent; never above 1 in magnitude."""
    if is_double(x):
        return libm("tanh", x)
    return _odd_quotient(b, x, 9.01, _TANH_TOP, _TANH_BOTTOM)


def erf(b: Builder, x: Expr) -> Expr:
    """The error function; never above 1 in magnitude."""
    if is_double(x):
        return libm("erf", x)
    return _odd_quotient(b, x, 3.95, _ERF_TOP, _ERF_BOTTOM)


def _odd_quotient(
    b: Builder, x: Expr, limit: float, top: tuple[float, ...], bottom: tuple[float, ...]
) -> Expr:
    x = b.let(at_least(b.let(at_most(x, limit)), -limit))
    square = b.let(x * x)
    result = b.let((x * horner(top, square)) / horner(bottom, square))
    return at_least(b.let(at_most(result, 1.0)), -1.0)


def sinh(b: Builder, x: Expr) -> Expr:
    """The hyperbolic sine."""
    if is_double(x):
        return libm("sinh", x)
    x = b.let(x)
    a = b.let(absolute(x))
    half = b.let(_half_exp(b, a))
    large = with_sign(subtract(half, constant(0.25, x) / half), x)
    square = b.let(x * x)
    small = x + (x * square) * horner(_SINH, square)
    return tirx.Select(a < constant(1.0, x), small, large)


def cosh(b: Builder, x: Expr) -> Expr:
    """The hyperbolic cosine."""
    if is_double(x):
        return libm("cosh", x)
    half = b.let(_half_exp(b, absolute(x)))
    return half + constant(0.25, x) / half


def _half_exp(b: Builder, x: Expr) -> Expr:
    """``exp(x) / 2`` for ``x >= 0``, which overflows no earlier than sinh does."""
    reduced, r = _exp_reduce(b, at_most(x, 90.0))
    exponent = _exponent(reduced)
    less = exponent - tirx.const(1, dtype_of(exponent))
    return _scale_twice(b, _exp_core(b, r) + constant(1.0, x), less)


__all__ = [
    "acos", "acosh", "asin", "asinh", "atan", "atanh", "cos", "cosh", "erf", "exp",
    "exp_difference", "exp_flush", "expm1", "log", "pow", "sigmoid", "sin", "sinh", "softplus",
    "tan", "tanh",
]  # fmt: skip
