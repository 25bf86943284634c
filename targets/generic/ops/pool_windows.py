"""Reductions over sliding windows: the loops that pools share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any

from tvm import tirx

from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import as_int, index, static_product
from ...tir.numeric import cast, dtype_of
from .conv_direct import block_start, blocks_of, choose_tile, line_at
from .conv_rows import Columns, Geometry, Rows

UNROLLED = 32
"""Most window positions that are unrolled, so that accumulators stay in registers."""


@dataclass(frozen=True)
class Pool:
    """``out = finish(fold of combine over each window)`` for x and out of shape (N, C, ...).

    ``fill`` is the value of padding and the initial value of the fold, in the dtype of the fold.
    ``finish`` gets the fold's result and the output's spatial indices.
    """

    x: TensorExpr
    geometry: Geometry
    out: BufferTensor
    fill: Expr
    combine: Callable[[Expr, Expr], Expr]
    finish: Callable[[Expr, Sequence[Expr]], Expr]


def pool_windows(b: Builder, pool: Pool) -> None:
    """Emit the loops of a pool; a task folds some rows of one channel, a tile at a time."""
    batch, channels, *spatial = pool.out.shape
    *outer, width = spatial
    dtype = dtype_of(pool.fill)
    tile = choose_tile(b, dtype, 1, outer[-1] if outer else 1, width)
    columns = Columns(width, tile.columns)
    rows = Rows.of(b, pool.x, pool.geometry, spatial, columns, pool.fill)

    outside, inside = split_window(pool.geometry.kernel, UNROLLED if tile.columns > 1 else 1)

    def fold(at: tuple[Expr, ...], lead: list[Expr], start: Expr) -> BufferTensor:
        n, c = at
        sums = b.local((tile.size,), dtype)
        with b.lanes(tile.size) as lane:
            sums.store((lane,), pool.fill)
        with b.grid(*outside) as far, b.grid(*inside, kind="unrolled") as near:
            for o in range(tile.rows):
                located = rows.locate(n, c, line_at(lead, o), (*far, *near))
                base = tile.row(0, o)
                with b.lanes(tile.columns) as lane:
                    value = cast(rows.load(located, start + lane), dtype)
                    sums.store((base + lane,), pool.combine(sums[base + lane], value))
        return sums

    def body(at: tuple[Expr, ...]) -> None:
        n, c, *lead = at
        if outer:
            lead[-1] = block_start(b, lead[-1], tile.rows, outer[-1])
        with b.loop(columns.count) as t:
            start = b.let(columns.start(t))
            sums = fold((n, c), lead, start)

            def write(o: int, lane: Expr) -> None:
                place = (*line_at(lead, o), start + lane)
                value = pool.finish(sums[tile.row(0, o) + lane], place)
                pool.out.store((n, c, *place), value)

            for o in range(tile.rows):
                columns.each(b, start, partial(write, o))

    blocks = [*outer[:-1], *(blocks_of(e, tile.rows) for e in outer[-1:])]
    work = static_product((*pool.geometry.kernel, tile.size, columns.count)) or 1 << 10
    b.nest((batch, channels, *blocks), body, work, sequential_last=True)


def split_window(kernel: Sequence[Any], most: int) -> tuple[Sequence[Any], Sequence[int]]:
    """The dims of a window to loop over, and the last ones, of at most ``most`` positions."""
    inside: list[int] = []
    for extent in map(as_int, reversed(kernel)):
        if extent is None or prod(inside) * extent > most:
            break
        inside.insert(0, extent)
    return kernel[: len(kernel) - len(inside)], inside


def taps_inside(g: Geometry, d: int, o: Expr, low: Any, high: Any) -> Expr:
    """The number of kernel positions of output ``o`` along dim ``d`` that are in ``[low, high)``.

    Positions count from the first element of the leading padding.
    """
    first = o * g.strides[d]

    def taps_below(bound: Any) -> Expr:
        gap = index(bound) - first
        dilation = g.dilations[d]
        if dilation > 1:
            gap = tirx.floordiv(gap + (dilation - 1), index(dilation))
        return tirx.max(tirx.min(gap, index(g.kernel[d])), index(0))

    return (
        taps_below(high)
        if isinstance(low, int) and low == 0
        else (taps_below(high) - taps_below(low))
    )
