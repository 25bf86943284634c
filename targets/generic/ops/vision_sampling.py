"""Reading tensors at fractional positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import product as cartesian
from typing import Any

from tvm import tirx

from ...tir.builder import Builder, Expr, index
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
