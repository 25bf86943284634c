"""Reading tensors at fractional positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product as cartesian
from typing import Any

from tvm import tirx

from ...tir.builder import Builder, Expr
from ...tir.extents import index
from ...tir.numeric import cast, dtype_of

Pixel = Callable[[tuple[Expr, ...]], Expr]
"""The value at whole indices, which may lie outside: the callee decides what is there."""


def clamp_index(i: Expr, extent: Any) -> Expr:
    """``i`` moved into ``[0, extent)``."""
    return tirx.max(tirx.min(i, index(extent) - 1), index(0))


def clamp_float(x: Expr, low: Expr, high: Expr) -> Expr:
    """``x`` moved into ``[low, high]``; NaN gives ``low``."""
    return tirx.Select(x >= low, tirx.min(x, high), low)


def near(b: Builder, x: Expr, extent: Any, margin: int = 4) -> Expr:
    """``x`` moved to at most ``margin`` outside ``[0, extent)``, so that it fits an integer."""
    high = cast(index(extent), dtype_of(x)) + tirx.const(margin, dtype_of(x))
    return b.let(clamp_float(x, tirx.const(-margin, dtype_of(x)), high))


def zero_outside(at: Sequence[Expr], extents: Sequence[Any], load: Pixel) -> Expr:
    """``load`` at ``at``, or zero where that is outside ``extents``."""
    inside = [t for i, e in zip(at, extents, strict=True) for t in (i >= 0, i < index(e))]
    value = load(tuple(clamp_index(i, e) for i, e in zip(at, extents, strict=True)))
    return tirx.Select(tirx.all(*inside), value, tirx.const(0, dtype_of(value)))


def linear(b: Builder, at: Sequence[Expr], pixel: Pixel) -> Expr:
    """N-linear interpolation between the ``2**n`` pixels around the float position ``at``."""
    dtype = dtype_of(at[0])
    floors = [b.let(tirx.floor(x)) for x in at]
    fractions = [b.let(x - f) for x, f in zip(at, floors, strict=True)]
    lows = [b.let(tirx.Cast("int64", f)) for f in floors]
    total: Expr = tirx.const(0, dtype)
    for corner in cartesian((0, 1), repeat=len(at)):
        weight: Expr = tirx.const(1, dtype)
        for upper, fraction in zip(corner, fractions, strict=True):
            weight = weight * (fraction if upper else tirx.const(1, dtype) - fraction)
        place = tuple(low + upper for low, upper in zip(lows, corner, strict=True))
        total = total + weight * cast(pixel(place), dtype)
    return total


def cubic(b: Builder, at: Sequence[Expr], pixel: Pixel, a: float = -0.75) -> Expr:
    """N-cubic convolution of the ``4**n`` pixels around the float position ``at`` (Keys, 1981)."""
    floors = [b.let(tirx.floor(x)) for x in at]
    weights = [cubic_weights(b, b.let(x - f), a) for x, f in zip(at, floors, strict=True)]
    lows = [b.let(tirx.Cast("int64", f)) for f in floors]

    def along(d: int, place: tuple[Expr, ...]) -> Expr:
        if d == len(at):
            return cast(pixel(place), dtype_of(at[0]))
        terms = [w * along(d + 1, (*place, lows[d] + (t - 1))) for t, w in enumerate(weights[d])]
        return b.let(terms[0] + terms[1] + terms[2] + terms[3])

    return along(0, ())


def cubic_weights(b: Builder, fraction: Expr, a: float) -> list[Expr]:
    """The weights of the four pixels around a position ``fraction`` behind the second."""
    one = tirx.const(1, dtype_of(fraction))
    coefficient = tirx.const(a, dtype_of(fraction))

    def near_weight(x: Expr) -> Expr:
        return ((coefficient + 2 * one) * x - (coefficient + 3 * one)) * x * x + one

    def far_weight(x: Expr) -> Expr:
        return ((x - 5 * one) * x + 8 * one) * x * coefficient - 4 * one * coefficient

    rest = b.let(one - fraction)
    return [
        b.let(far_weight(b.let(fraction + one))),
        b.let(near_weight(fraction)),
        b.let(near_weight(rest)),
        b.let(far_weight(b.let(rest + one))),
    ]
