"""Lowerings of ops that make a tensor out of a few scalars."""

from __future__ import annotations

import math
from typing import Any

from tvm import tirx

from ...tir.builder import Expr, TensorExpr
from ...tir.extents import index
from ...tir.numeric import cast, dtype_of
from ..registry import LowerContext, lowering, sizes
from .movement_params import At, fresh_sizes, scalar_param


def _real(value: Any) -> Expr:
    """A number or an expression as float64."""
    if isinstance(value, int | float):
        return tirx.const(float(value), "float64")
    return cast(value, "float64")


def _converted(ctx: LowerContext, value: Expr) -> Expr:
    """A float64 value in the compute type of the result (bool: not zero)."""
    to = ctx.types[0].dtype
    if to.kind == "b":
        return tirx.NE(value, _real(0))
    return cast(value, TensorExpr(to.name, (), lambda _at: value).compute_dtype)


# ---- Range, EyeLike ------------------------------------------------------------------------------


def _delta(ctx: LowerContext, like: Expr) -> Expr:
    return scalar_param(ctx, 2) if ctx.has(2) else tirx.const(1, dtype_of(like))


@lowering("Range", "com.microsoft.Range")
def _range(ctx: LowerContext) -> TensorExpr:
    def load(at: At) -> Expr:
        start = scalar_param(ctx, 0)
        delta = _delta(ctx, start)
        if not dtype_of(start).startswith("float"):
            return start + cast(at[0], dtype_of(start)) * delta
        # One rounding at the end, however long the range is.
        return cast(_real(start) + _real(at[0]) * _real(delta), dtype_of(start))

    return ctx.lazy(load, cost=3)


@sizes("Range", "com.microsoft.Range")
def _range_sizes(ctx: LowerContext) -> list[Expr]:
    start, limit = scalar_param(ctx, 0), scalar_param(ctx, 1)
    delta = _delta(ctx, start)
    if dtype_of(start).startswith("float"):
        steps = tirx.ceil((_real(limit) - _real(start)) / _real(delta))
        most = _real(2**62)
        countable = tirx.all(steps >= -most, steps <= most)  # not NaN, as of a delta of 0
        size = cast(tirx.max(steps, _real(0)), "int64")
        return fresh_sizes(ctx, [tirx.Select(countable, size, tirx.const(-1, "int64"))])
    first, last, step = index(start), index(limit), index(delta)
    span = tirx.Select(step > 0, last - first, first - last)
    size = tirx.max(tirx.max(step, -step), index(1))
    return fresh_sizes(ctx, [tirx.floordiv(tirx.max(span, index(0)) + size - 1, size)])


@lowering("EyeLike")
def _eye_like(ctx: LowerContext) -> TensorExpr:
    k = index(ctx.attr("k") or 0)

    def load(at: At) -> Expr:
        return _converted(ctx, _real((at[1] - at[0]).equal(k)))

    return ctx.lazy(load)


# ---- windows -------------------------------------------------------------------------------------


def _cosines(ctx: LowerContext, terms: tuple[float, ...]) -> TensorExpr:
    """The sum of ``terms[k] * cos(2 pi k n / N)``, N one less where it is not periodic."""
    size = index(ctx.out_shape()[0])

    def load(at: At) -> Expr:
        period = _real(size if ctx.attr("periodic") else size - 1)
        total = _real(terms[0])
        for k, weight in enumerate(terms[1:], 1):
            total = total + tirx.cos(_real(at[0]) * _real(2 * math.pi * k) / period) * _real(weight)
        return _converted(ctx, total)

    return ctx.lazy(load, cost=40)


@lowering("HannWindow")
def _hann(ctx: LowerContext) -> TensorExpr:
    return _cosines(ctx, (0.5, -0.5))


@lowering("HammingWindow")
def _hamming(ctx: LowerContext) -> TensorExpr:
    return _cosines(ctx, (25 / 46, 25 / 46 - 1))


@lowering("BlackmanWindow")
def _blackman(ctx: LowerContext) -> TensorExpr:
    return _cosines(ctx, (0.42, -0.5, 0.08))


@sizes("HannWindow", "HammingWindow", "BlackmanWindow")
def _window_sizes(ctx: LowerContext) -> list[Expr]:
    return fresh_sizes(ctx, [index(scalar_param(ctx, 0))])


# ---- MelWeightMatrix -----------------------------------------------------------------------------


def _mel(hertz: Expr) -> Expr:
    return _real(2595 / math.log(10)) * tirx.log(_real(1) + hertz / _real(700))


def _bin(ctx: LowerContext, m: Expr) -> Expr:
    """The spectrogram bin of mel point ``m``, rounded down."""
    low, high = (_mel(_real(scalar_param(ctx, i))) for i in (3, 4))
    points = _real(index(scalar_param(ctx, 0)) + 2)
    mel = low + _real(m) * (high - low) / points
    hertz = _real(700) * (tirx.exp(mel * _real(math.log(10) / 2595)) - _real(1))
    scale = _real(index(scalar_param(ctx, 1)) + 1)
    return ctx.b.let(cast(tirx.floor(scale * hertz / _real(scalar_param(ctx, 2))), "int64"))


@lowering("MelWeightMatrix")
def _mel_weight_matrix(ctx: LowerContext) -> TensorExpr:
    """Triangles over the spectrogram's bins, peaking at the center bin of each mel point."""

    def load(at: At) -> Expr:
        row, m = at
        left, center, right = (_bin(ctx, m + i) for i in range(3))
        up = _ratio(row - left, center - left)
        down = _ratio(right - row, right - center)
        rising = tirx.all(row >= left, row <= center)
        falling = tirx.all(row >= center, row < right)
        peak = tirx.all(left.equal(center), row.equal(center))
        value = tirx.Select(rising, tirx.Select(peak, _real(1), up), _real(0))
        return _converted(ctx, tirx.Select(falling, down, value))

    return ctx.lazy(load, cost=200)


def _ratio(part: Expr, whole: Expr) -> Expr:
    return _real(part) / _real(tirx.max(whole, index(1)))


@sizes("MelWeightMatrix")
def _mel_weight_matrix_sizes(ctx: LowerContext) -> list[Expr]:
    bins = tirx.floordiv(index(scalar_param(ctx, 1)), index(2)) + 1
    return fresh_sizes(ctx, [bins, index(scalar_param(ctx, 0))])
