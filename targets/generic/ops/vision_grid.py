"""Lowering of GridSample."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.extents import index
from ...tir.numeric import cast
from ..registry import LowerContext, lowering
from .quant_math import round_even
from .vision_sampling import Pixel, clamp_float, clamp_index, cubic, linear, near, zero_outside

_MODES = {"linear": "linear", "bilinear": "linear", "cubic": "cubic", "bicubic": "cubic",
          "nearest": "nearest"}  # fmt: skip


@lowering("GridSample", "com.microsoft.GridSample")
def lower_grid_sample(c: LowerContext) -> TensorExpr:
    """GridSample-22 over any number of spatial dims; positions in float32 or float64."""
    sampler = _Sampler(c)
    cost = {"nearest": 8, "linear": 8 << sampler.rank, "cubic": 16 << (2 * sampler.rank)}
    return c.lazy(sampler.sample, cost=cost[sampler.mode])


class _Sampler:
    """Samples x (N, C, ...) at the positions in grid (N, ..., rank), each in [-1, 1]."""

    def __init__(self, c: LowerContext) -> None:
        self.b = c.b
        self.x: BufferTensor = c.buffered(0)
        self.grid: BufferTensor = c.buffered(1)
        self.extents = self.x.shape[2:]
        self.rank = len(self.extents)
        self.align = bool(c.attr("align_corners"))
        self.padding = str(c.attr("padding_mode"))
        mode = str(c.attr("mode"))
        if mode not in _MODES:
            raise c.error(f"unknown mode {mode!r}")
        if self.padding not in ("zeros", "border", "reflection"):
            raise c.error(f"unknown padding_mode {self.padding!r}")
        self.mode = _MODES[mode]
        self.dtype = "float64" if self.x.compute_dtype == "float64" else "float32"

    def sample(self, at: tuple[Expr, ...]) -> Expr:
        """The output element at (n, c, ...)."""
        n, channel, *o = at
        position = [self._position(d, n, o) for d in range(self.rank)]
        pixel = self._pixel(n, channel)
        if self.mode == "nearest":
            return pixel(tuple(self.b.let(cast(p, "int64")) for p in position))
        blend = linear if self.mode == "linear" else cubic
        return cast(blend(self.b, position, pixel), self.x.compute_dtype)

    def _position(self, d: int, n: Expr, o: Sequence[Expr]) -> Expr:
        """The coordinate along ``d`` in pixels; the grid lists the last dim first."""
        raw = cast(self.grid.at(n, *o, self.rank - 1 - d), self.dtype)
        size = self._float(self.extents[d])
        one, half = self._float(1), self._float(0.5)
        unit = raw + one
        place = unit * half * (size - one) if self.align else (unit * size - one) * half
        if self.mode == "nearest":
            place = round_even(place)
        return near(self.b, self._moved(self.b.let(place), d), self.extents[d])

    def _moved(self, place: Expr, d: int) -> Expr:
        """``place`` moved into the image by the padding mode."""
        size = self._float(self.extents[d])
        if self.padding == "border":
            low, high = self._bounds(d)
            clamped = clamp_float(place, self._float(0), size - self._float(1))
            return tirx.Select(tirx.all(place >= low, place <= high), place, clamped)
        return self._reflected(place, d) if self.padding == "reflection" else place

    def _bounds(self, d: int) -> tuple[Expr, Expr]:
        size = self._float(self.extents[d])
        if self.align:
            return self._float(0), size - self._float(1)
        return self._float(-0.5), size - self._float(0.5)

    def _reflected(self, place: Expr, d: int) -> Expr:
        """``place`` mirrored at the borders until it is between them."""
        low, high = self._bounds(d)
        span = high - low
        beyond = self.b.let(tirx.Select(place < low, low - place, place - high))
        turns = self.b.let(tirx.floor(beyond / span))
        rest = self.b.let(beyond - turns * span)
        even = (turns * self._float(0.5)).equal(tirx.floor(turns * self._float(0.5)))
        from_low = tirx.Select(place < low, even, tirx.Not(even))
        mirrored = tirx.Select(from_low, low + rest, high - rest)
        outside = tirx.any(place < low, place > high)
        return self.b.let(tirx.Select(outside, mirrored, place))

    def _pixel(self, n: Expr, channel: Expr) -> Pixel:
        def load(at: tuple[Expr, ...]) -> Expr:
            return self.x.at(n, channel, *at)

        if self.padding == "zeros":
            return lambda at: zero_outside(at, self.extents, load)

        def inside(at: tuple[Expr, ...]) -> Expr:
            if self.padding == "reflection":
                at = tuple(self._mirrored(i, d) for d, i in enumerate(at))
            return load(tuple(clamp_index(i, e) for i, e in zip(at, self.extents, strict=True)))

        return inside

    def _mirrored(self, i: Expr, d: int) -> Expr:
        """An index at most a few places outside, mirrored at the borders."""
        place = self.b.let(self._reflected(self.b.let(cast(i, self.dtype)), d))
        return self.b.let(cast(near(self.b, place, self.extents[d]), "int64"))

    def _float(self, value: Any) -> Expr:
        if isinstance(value, int | float):
            return tirx.const(float(value), self.dtype)
        return cast(index(value), self.dtype)
