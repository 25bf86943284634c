"""Lowerings of RoiAlign and MaxRoiPool."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...tir.builder import Builder, Expr, TensorExpr
from ...tir.extents import index
from ...tir.numeric import cast, dtype_of
from ...tir.reduce import lowest
from ..registry import LowerContext, lowering
from .pool import larger
from .vision_sampling import clamp_float, clamp_index


def _const(value: float, like: Expr) -> Expr:
    return tirx.const(value, dtype_of(like))


class _Span:
    """One dim of a region: its start, the length of a bin, and the number of samples in a bin."""

    def __init__(self, c: LowerContext, start: Expr, end: Expr, bins: int) -> None:
        b = c.b
        pixel_shift = c.attr("coordinate_transformation_mode") == "half_pixel"
        scale, shift = _const(c.attr("spatial_scale"), start), 0.5 if pixel_shift else 0.0
        self.start = b.let(start * scale - _const(shift, start))
        length = end * scale - _const(shift, start) - self.start
        if not pixel_shift:
            one = _const(1, start)
            length = tirx.Select(length > one, length, one)
        self.bin = b.let(length / _const(bins, start))
        given = int(c.attr("sampling_ratio") or 0)
        self.samples = index(given) if given else b.let(cast(tirx.ceil(self.bin), "int64"))

    def position(self, b: Builder, k: Expr, i: Expr) -> Expr:
        """Sample ``i`` of bin ``k``."""
        dtype = dtype_of(self.bin)
        part = (cast(i, dtype) + _const(0.5, self.bin)) * self.bin / cast(self.samples, dtype)
        return b.let(self.start + cast(k, dtype) * self.bin + part)


class _Neighbours:
    """The two pixels beside a position along one dim, with their weights (zero far outside)."""

    def __init__(self, b: Builder, position: Expr, extent: Any) -> None:
        zero, one = _const(0, position), _const(1, position)
        size = cast(index(extent), dtype_of(position))
        inside = tirx.all(position >= _const(-1, position), position <= size)
        moved = b.let(clamp_float(position, zero, size - one))
        self.low = clamp_index(b.let(cast(moved, "int64")), extent)
        self.high = clamp_index(self.low + 1, extent)
        upper = b.let(moved - tirx.floor(moved))
        self.weights = (
            b.let(tirx.Select(inside, one - upper, zero)),
            b.let(tirx.Select(inside, upper, zero)),
        )


@lowering("RoiAlign")
def lower_roi_align(c: LowerContext) -> TensorExpr:
    """RoiAlign-22: the mean or maximum of bilinear samples in each bin."""
    b, x, rois, batches = c.b, c.buffered(0), c.buffered(1), c.buffered(2)
    out, maximum = c.result(), c.attr("mode") == "max"
    regions, channels, height, width = out.shape
    dtype = x.compute_dtype

    def body(at: tuple[Expr, ...]) -> None:
        n, channel = at
        image = b.let(clamp_index(cast(batches[n], "int64"), x.shape[0]))
        rows = _Span(c, cast(rois[n, 1], dtype), cast(rois[n, 3], dtype), height)
        columns = _Span(c, cast(rois[n, 0], dtype), cast(rois[n, 2], dtype), width)
        count = tirx.max(rows.samples * columns.samples, index(1))
        with b.grid(height, width) as (i, j):
            total = b.scalar(dtype, lowest(dtype) if maximum else 0.0)
            with b.loop(rows.samples) as s:
                y = _Neighbours(b, rows.position(b, i, s), x.shape[2])
                with b.loop(columns.samples) as t:
                    z = _Neighbours(b, columns.position(b, j, t), x.shape[3])
                    value = sample(image, channel, y, z)
                    total.set(larger(value, total.get()) if maximum else total.get() + value)
            empty = tirx.any(rows.samples <= 0, columns.samples <= 0)
            mean = total.get() if maximum else total.get() / cast(count, dtype)
            out.store((n, channel, i, j), tirx.Select(empty, tirx.const(0, dtype), mean))

    def sample(image: Expr, channel: Expr, y: _Neighbours, z: _Neighbours) -> Expr:
        corners = [
            b.let(x[image, channel, i, j] * wy * wz)
            for i, wy in zip((y.low, y.high), y.weights, strict=True)
            for j, wz in zip((z.low, z.high), z.weights, strict=True)
        ]
        if maximum:
            left, right = (b.let(larger(*corners[i : i + 2])) for i in (0, 2))
            return b.let(larger(left, right))
        return corners[0] + corners[1] + corners[2] + corners[3]

    b.nest((regions, channels), body, cost=1 << 10, sequential_last=True)
    return out


@lowering("MaxRoiPool")
def lower_max_roi_pool(c: LowerContext) -> TensorExpr:
    """MaxRoiPool-22: regions rounded to whole pixels, empty bins give zero (Girshick, 2015)."""
    b, x, rois, out = c.b, c.buffered(0), c.buffered(1), c.result()
    regions, channels, height, width = out.shape
    dtype = x.compute_dtype

    def body(at: tuple[Expr, ...]) -> None:
        n, channel = at
        image = b.let(clamp_index(cast(rois[n, 0], "int64"), x.shape[0]))
        rows = _RoundSpan(c, rois[n, 2], rois[n, 4], height)
        columns = _RoundSpan(c, rois[n, 1], rois[n, 3], width)
        with b.grid(height, width) as (i, j):
            top, bottom = rows.bin(b, i, x.shape[2])
            left, right = columns.bin(b, j, x.shape[3])
            best = b.scalar(dtype, lowest(dtype))
            with b.loop(tirx.max(bottom - top, index(0))) as dy:
                with b.loop(tirx.max(right - left, index(0))) as dx:
                    value = b.let(x[image, channel, top + dy, left + dx])
                    best.set(larger(value, best.get()))
            empty = tirx.any(bottom <= top, right <= left)
            out.store((n, channel, i, j), tirx.Select(empty, tirx.const(0, dtype), best.get()))

    b.nest((regions, channels), body, cost=1 << 10, sequential_last=True)
    return out


class _RoundSpan:
    """One dim of a region in whole pixels, cut into bins."""

    def __init__(self, c: LowerContext, start: Expr, end: Expr, bins: int) -> None:
        scale = _const(c.attr("spatial_scale"), start)
        self.start = c.b.let(cast(tirx.round(start * scale), "int64"))
        last = cast(tirx.round(end * scale), "int64")
        length = tirx.max(last - self.start + 1, index(1))
        self.size = c.b.let(cast(length, dtype_of(start)) / _const(bins, start))

    def bin(self, b: Builder, k: Expr, extent: Any) -> tuple[Expr, Expr]:
        """The first pixel of bin ``k`` and the one after its last, inside the image."""
        step = cast(k, dtype_of(self.size)) * self.size
        low = cast(tirx.floor(step), "int64") + self.start
        high = cast(tirx.ceil(step + self.size), "int64") + self.start
        return b.let(_bounded(low, extent)), b.let(_bounded(high, extent))


def _bounded(i: Expr, extent: Any) -> Expr:
    return tirx.max(tirx.min(i, index(extent)), index(0))
