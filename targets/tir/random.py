"""Counter-based random numbers: Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as
1, 2, 3", 2011). A number depends on a key and a counter alone, so loops stay parallel.
"""

from __future__ import annotations

import math as constants
from typing import Any

from tvm import tirx

from . import math
from .builder import Builder
from .floats import subtract

Expr = Any

_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10
_MASK = 0xFFFFFFFF


def philox(b: Builder, key: int, counter: Expr) -> tuple[Expr, Expr, Expr, Expr]:
    """Four random words (uint32) for a 64-bit key and an integer counter."""
    key &= 2**64 - 1
    k0, k1 = key & _MASK, key >> 32
    zero = tirx.const(0, "uint32")
    # Unsigned, because TVM narrows signed index arithmetic to 32 bits on GPUs.
    wide = b.let(tirx.Cast("uint64", counter))
    low = tirx.Cast("uint32", wide)
    high = tirx.Cast("uint32", tirx.shift_right(wide, tirx.const(32, "uint64")))
    words = (b.let(low), b.let(high), zero, zero)
    for _ in range(_ROUNDS):
        words = _round(b, words, k0, k1)
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return words


def _round(b: Builder, w: tuple[Expr, ...], k0: int, k1: int) -> tuple[Expr, Expr, Expr, Expr]:
    high0, low0 = _multiply(b, _MULTIPLIERS[0], w[0])
    high1, low1 = _multiply(b, _MULTIPLIERS[1], w[2])
    return (
        b.let(_xor(_xor(high1, w[1]), tirx.const(k0, "uint32"))),
        low1,
        b.let(_xor(_xor(high0, w[3]), tirx.const(k1, "uint32"))),
        low0,
    )


def _xor(a: Expr, b: Expr) -> Expr:
    return tirx.bitwise_xor(a, b)


def _multiply(b: Builder, factor: int, word: Expr) -> tuple[Expr, Expr]:
    """The high and low word of a 64-bit product."""
    product = b.let(tirx.Cast("uint64", word) * tirx.const(factor, "uint64"))
    high = tirx.shift_right(product, tirx.const(32, "uint64"))
    return b.let(tirx.Cast("uint32", high)), b.let(tirx.Cast("uint32", product))


def uniform(b: Builder, key: int, counter: Expr, dtype: str) -> Expr:
    """A float32 or float64 in [0, 1), with all the bits its mantissa holds there."""
    words = philox(b, key, counter)
    return _unit64(words[0], words[1]) if dtype == "float64" else _unit32(words[0])


def _unit32(word: Expr) -> Expr:
    top = tirx.Cast("int32", tirx.shift_right(word, tirx.const(8, "uint32")))
    return tirx.Cast("float32", top) * tirx.const(2.0**-24, "float32")


def _unit64(high: Expr, low: Expr) -> Expr:
    top = tirx.shift_left(tirx.Cast("int64", high), tirx.const(21, "int64"))
    rest = tirx.Cast("int64", tirx.shift_right(low, tirx.const(11, "uint32")))
    return tirx.Cast("float64", tirx.bitwise_or(top, rest)) * tirx.const(2.0**-53, "float64")


def normal(b: Builder, key: int, counter: Expr, dtype: str) -> Expr:
    """A float32 or float64 of the standard normal distribution (Box and Muller)."""
    words = philox(b, key, counter)
    if dtype == "float64":
        first, second = _unit64(words[0], words[1]), _unit64(words[2], words[3])
    else:
        first, second = _unit32(words[0]), _unit32(words[1])
    radius = math.log(b, b.let(subtract(tirx.const(1.0, dtype), first)))
    angle = b.let(second * tirx.const(2 * constants.pi, dtype))
    return tirx.sqrt(radius * tirx.const(-2.0, dtype)) * math.cos(b, angle)
