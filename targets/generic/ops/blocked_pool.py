"""Lowering of pools on blocked layouts: a vector of channels for each output position."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, TypeAlias

from tvm import tirx

from ....ir.windows import Window, pool_window
from ...tir.builder import BufferTensor, TensorExpr
from ...tir.extents import as_int, index
from ...tir.numeric import cast
from ...tir.reduce import lowest
from ..registry import LowerContext, lowering
from .pool import larger
from .pool_windows import UNROLLED, split_window

Expr = Any
At: TypeAlias = "tuple[Expr, ...]"
Bounds: TypeAlias = "list[tuple[Expr, Expr]]"


@lowering("kiln.PoolBlocked")
def lower_pool(ctx: LowerContext) -> TensorExpr:
    """A vector of channels for each output position; windows are clipped to the image."""
    return _Pool(ctx).lower()


class _Pool:
    """The state of one lowering.

    The first dims of the window become loops (``loops``); the positions along the last ones
    (``written``) are unrolled.
    """

    def __init__(self, ctx: LowerContext) -> None:
        assert ctx.input_types[0] is not None
        self.ctx, self.b = ctx, ctx.b
        self.x, self.out = ctx.buffered(0), ctx.result(0)
        self.window = pool_window(ctx.node, ctx.input_types[0].dims[2:-1])
        self.lanes = int(self.x.shape[-1])
        self.maximum = ctx.attr("mode") == "max"
        most = UNROLLED if self.lanes > 1 else 1
        self.loops, self.written = split_window(self.window.kernel, most)

    @property
    def leaves(self) -> bool:
        """May a window reach past the image?"""
        pads = (*self.window.begin, *self.window.end)
        return bool(self.ctx.attr("ceil_mode")) or any(p != 0 for p in pads)

    def lower(self) -> TensorExpr:
        cost = self.lanes * 9
        self.b.nest(self.out.shape[:-1], self._position, cost=cost, sequential_last=True)
        return self.out

    def _position(self, at: At) -> None:
        b, first = self.b, len(self.loops)
        bounds = [_clip(b, self.window, i, p, self.x.shape[2 + i]) for i, p in enumerate(at[2:])]
        totals = self._totals()
        if not self.leaves or not self.written:
            self._fold_rows(totals, at, bounds[:first], self.written)
        else:
            ends = zip(bounds[first:], self.written, strict=True)
            with b.when(tirx.all(*((high - low).equal(k) for (low, high), k in ends))):
                self._fold_rows(totals, at, bounds[:first], self.written)
            with b.otherwise():
                self._fold_rows(totals, at, bounds, ())
        for other in totals[1:]:
            self._fold(totals[0], other.__getitem__)
        _finish(self.ctx, totals[0], self.out, at, self.window, bounds, self.maximum)

    def _totals(self) -> list[BufferTensor]:
        """The accumulators, which positions of the window are folded into in turn.

        For a maximum there are several, so that none waits for the result of the step before. A sum
        has one, since the order of its terms decides how it is rounded.
        """
        b, dtype = self.b, self.x.compute_dtype
        totals = [b.local((self.lanes,), dtype, "acc") for _ in range(2 if self.maximum else 1)]
        for total in totals:
            with b.lanes(self.lanes) as v:
                total.store((v,), lowest(dtype) if self.maximum else tirx.const(0, dtype))
        return totals

    def _fold_rows(
        self, totals: Sequence[BufferTensor], at: At, bounds: Bounds, written: Sequence[int]
    ) -> None:
        """Fold the window's positions: a loop within bounds, with the last dims unrolled."""
        turns = itertools.cycle(totals)
        with self.b.grid(*(high - low for low, high in bounds)) as k:
            start = [low + o for (low, _), o in zip(bounds, k, strict=True)]
            for rest in itertools.product(*map(range, written)):
                source = self._source(at, [*start, *rest])
                self._fold(next(turns), lambda v, source=source: self.x[(*source, v)])

    def _source(self, at: At, k: Sequence[Expr]) -> list[Expr]:
        """The index in the input of window position ``k`` of output ``at``."""
        n, c, *place = at
        w = self.window
        return [n, c, *(
            p * w.strides[i] - self.b.dim(w.begin[i]) + o * w.dilations[i]
            for i, (p, o) in enumerate(zip(place, k, strict=True))
        )]  # fmt: skip

    def _fold(self, total: BufferTensor, value: Any) -> None:
        with self.b.lanes(self.lanes) as v:
            have, new = total[v], value(v)
            total.store((v,), larger(have, new) if self.maximum else have + new)


def _clip(b: Any, window: Window, i: int, p: Expr, extent: Any) -> tuple[Expr, Expr]:
    """The window positions along dim ``i`` that are inside the image, as [low, high)."""
    step = window.dilations[i]
    start = b.let(p * window.strides[i] - b.dim(window.begin[i]))
    low = tirx.max(index(0), tirx.floordiv(index(step - 1) - start, index(step)))
    positions = tirx.floordiv(index(extent) - start + (step - 1), index(step))
    high = tirx.min(index(b.dim(window.kernel[i])), positions)
    low = b.let(low, "low")
    return low, b.let(tirx.max(low, high), "high")


def _finish(
    ctx: LowerContext, acc: BufferTensor, out: BufferTensor, at: tuple[Expr, ...], window: Window,
    bounds: Bounds, maximum: bool,
) -> None:  # fmt: skip
    b = ctx.b
    count: Any = None
    if not maximum:
        count = index(1)
        for i, (low, high) in enumerate(bounds):
            extent = (high - low) if not ctx.attr("count_include_pad") else _padded_count(
                ctx, window, i, at[2 + i]
            )  # fmt: skip
            count = count * extent
        count = b.let(cast(count, acc.compute_dtype), "count")
    with b.lanes(as_int(out.shape[-1])) as v:
        out.store((*at, v), acc[v] if maximum else acc[v] / count)


def _padded_count(ctx: LowerContext, window: Window, i: int, p: Expr) -> Expr:
    """Window positions inside the image and its padding (``ceil_mode`` may reach past both)."""
    assert ctx.input_types[0] is not None
    b = ctx.b
    extent = index(b.dim(ctx.input_types[0].dims[2 + i])) + b.dim(window.end[i])
    start = p * window.strides[i] - b.dim(window.begin[i])
    step = window.dilations[i]
    positions = tirx.floordiv(extent - start + (step - 1), index(step))
    return tirx.min(index(b.dim(window.kernel[i])), positions)
