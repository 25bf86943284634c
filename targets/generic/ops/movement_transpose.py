"""Lowering of Transpose, by transposing square blocks in vector registers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import tirx

from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import as_int, index
from ...tir.numeric import storage_dtype
from ..registry import LowerContext, lowering
from .movement_params import At

MOST_LANES = 16
"""The edge of a block is at most this long, so that a block fits the vector registers."""


@lowering("Transpose")
def _transpose(ctx: LowerContext) -> TensorExpr:
    x, out = ctx.input(0), ctx.destination()
    perm = ctx.attr("perm")
    order = tuple(reversed(range(x.rank))) if perm is None else [p % x.rank for p in perm]
    place = tuple(order.index(axis) for axis in range(x.rank))
    if out is not None and x.rank and place[-1] != x.rank - 1:
        transpose = _BlockTranspose(ctx.b, x, out, place, _lanes(ctx))
        if transpose.worthwhile():
            transpose.run()
            return out
    return ctx.lazy(lambda at: x[tuple(at[p] for p in place)], cost=x.cost)


def _lanes(ctx: LowerContext) -> int:
    """The edge of a block; 1 where vectors cannot hold the elements."""
    stored = storage_dtype(ctx.out_dtype())
    if ctx.b.loops.lane_kind != "vectorized" or stored == "bool":
        return 1
    return min(MOST_LANES, ctx.b.loops.vector_bytes * 8 // tvm.DataType(stored).bits)


@dataclass
class _BlockTranspose:
    """The transpose of ``x`` into ``out``; axis ``i`` of ``x`` is axis ``place[i]`` of ``out``.

    A block spans ``across``, the axis of ``out`` along which ``x`` is contiguous, and the last.
    """

    b: Builder
    x: TensorExpr
    out: BufferTensor
    place: tuple[int, ...]
    lanes: int

    @property
    def across(self) -> int:
        return self.place[-1]

    @property
    def last(self) -> int:
        return len(self.place) - 1

    def worthwhile(self) -> bool:
        """Are both axes as long as a block, as far as is known?"""
        extents = [as_int(self.out.shape[axis]) for axis in (self.across, self.last)]
        return self.lanes > 1 and all(e is None or e >= self.lanes for e in extents)

    def run(self) -> None:
        space = list(self.out.shape)
        for axis in (self.across, self.last):
            space[axis] = self._count(space[axis])
        cost = self.lanes * self.lanes * (1 + self.x.cost)
        self.b.nest(space, self._block, cost, sequential_last=True)

    def _count(self, extent: Any) -> Any:
        known = as_int(extent)
        if known is not None:
            return -(-known // self.lanes)
        return tirx.floordiv(extent + index(self.lanes - 1), index(self.lanes))

    def _block(self, at: At) -> None:
        b, start = self.b, list(at)
        whole = []
        for axis in (self.across, self.last):
            start[axis] = b.let(at[axis] * self.lanes)
            if (as_int(self.out.shape[axis]) or -1) % self.lanes:
                whole.append(start[axis] + self.lanes <= index(self.out.shape[axis]))
        if not whole:
            self._transposed(start)
            return
        inside = b.let(tirx.all(*whole))
        with b.when(inside):
            self._transposed(start)
        with b.when(tirx.Not(inside)):
            self._one_by_one(start)

    def _source(self, at: list[Expr]) -> At:
        return tuple(at[p] for p in self.place)

    def _moved(self, start: list[Expr], axis: int, by: Any) -> list[Expr]:
        return [i + by if a == axis else i for a, i in enumerate(start)]

    def _one_by_one(self, start: list[Expr]) -> None:
        extents = [
            self.b.let(tirx.min(index(self.lanes), index(self.out.shape[axis]) - start[axis]))
            for axis in (self.across, self.last)
        ]
        with self.b.grid(*extents) as (i, j):
            at = self._moved(self._moved(start, self.across, i), self.last, j)
            self.out.store(at, self.x[self._source(at)])

    def _transposed(self, start: list[Expr]) -> None:
        rows = transposed_rows(self.b, self._rows(start))
        for i, row in enumerate(rows):
            *lead, last = self._moved(start, self.across, i)
            self.out.store_raw([*lead, tirx.Ramp(last, index(1), self.lanes)], row)

    def _rows(self, start: list[Expr]) -> list[Expr]:
        """The block as vectors along the contiguous axis of the input."""
        if isinstance(self.x, BufferTensor):
            sources = [self._source(self._moved(start, self.last, j)) for j in range(self.lanes)]
            return [self._vector(self.x, source) for source in sources]
        tile = self.b.local((self.lanes, self.lanes), self.out.dtype, "block")
        for j in range(self.lanes):
            with self.b.lanes(self.lanes) as lane:
                at = self._moved(self._moved(start, self.across, lane), self.last, j)
                tile.store((j, lane), self.x[self._source(at)])
        return [self._vector(tile, (index(j), index(0))) for j in range(self.lanes)]

    def _vector(self, tensor: BufferTensor, at: At) -> Expr:
        ramp = tirx.Ramp(at[-1], index(1), self.lanes)
        return self.b.let(tensor.load_raw([*at[:-1], ramp]))


def transposed_rows(b: Builder, rows: list[Expr]) -> list[Expr]:
    """A square block of n vectors, transposed by log2(n) rounds of shuffles of two vectors each."""
    n, step = len(rows), 1
    while step < n:
        low = [n + lane - step if lane & step else lane for lane in range(n)]
        high = [n + lane if lane & step else lane + step for lane in range(n)]
        turned = list(rows)
        for r in (r for r in range(n) if not r & step):
            pair = [rows[r], rows[r + step]]
            turned[r], turned[r + step] = (b.let(_shuffle(pair, pick)) for pick in (low, high))
        rows, step = turned, 2 * step
    return rows


def _shuffle(vectors: list[Expr], lanes: list[int]) -> Expr:
    return tirx.Shuffle(vectors, [tirx.IntImm("int32", lane) for lane in lanes])
