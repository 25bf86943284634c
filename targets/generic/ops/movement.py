"""Lowerings of ops that move elements: each result element is one input element."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ....ir.dims import Dim
from ...tir.builder import Expr, TensorExpr
from ...tir.extents import index
from ..registry import LowerContext, lowering, sizes
from .movement_params import (
    At,
    clamp,
    fresh_sizes,
    int_params,
    replaced,
    scalar_param,
    zero,
)

# ---- Tile ----------------------------------------------------------------------------------------


@lowering("Tile")
def _tile(ctx: LowerContext) -> TensorExpr:
    x, t = ctx.input(0), ctx.input_types[0]
    assert t is not None
    have, want = t.dims, ctx.types[0].dims
    place = ctx.destination()
    if place is not None:
        out = place
        repeats = [
            1 if h == w else tirx.floordiv(index(n), tirx.max(index(m), index(1)))
            for h, w, n, m in zip(have, want, ctx.out_shape(), x.shape, strict=True)
        ]

        def body(at: At) -> None:
            own, repeat = at[1::2], at[0::2]
            where = [i + r * index(n) for i, r, n in zip(own, repeat, x.shape, strict=True)]
            out.store(where, x[own])

        space = [n for pair in zip(repeats, x.shape, strict=True) for n in pair]
        ctx.b.nest(space, body, 1 + x.cost)
        return place
    return ctx.lazy(
        lambda at: x[tuple(map(_tile_index, at, x.shape, have, want))], cost=x.cost + 2 * x.rank
    )


def _tile_index(i: Expr, extent: Any, have: Dim, want: Dim) -> Expr:
    if have == want:
        return i
    return index(0) if have == 1 else tirx.floormod(i, index(extent))


@sizes("Tile")
def _tile_sizes(ctx: LowerContext) -> list[Expr]:
    repeats = int_params(ctx, 1)
    return fresh_sizes(
        ctx, [index(n) * r for n, r in zip(ctx.input(0).shape, repeats, strict=True)]
    )


# ---- Concat, Split -------------------------------------------------------------------------------


@lowering("Concat")
def _concat(ctx: LowerContext) -> TensorExpr:
    """Each input is stored to its part; as an expression, every element would compute all parts."""
    out = ctx.result()
    axis = ctx.attr("axis") % out.rank
    start: Any = index(0)
    for k in range(len(ctx.inputs)):
        _store_part(ctx, out, ctx.input(k), axis, start)
        start = start + index(ctx.input(k).shape[axis])
    return out


def _store_part(ctx: LowerContext, out: Any, x: TensorExpr, axis: int, start: Expr) -> None:
    ctx.b.nest(
        x.shape, lambda at: out.store(replaced(at, axis, at[axis] + start), x[at]), 1 + x.cost
    )


@lowering("Split")
def _split(ctx: LowerContext) -> list[TensorExpr]:
    x = ctx.input(0)
    axis = ctx.attr("axis") % x.rank
    out: list[TensorExpr] = []
    start: Any = index(0)
    for i in range(len(ctx.types)):
        out.append(_part(ctx, x, axis, start, i))
        start = start + index(ctx.out_shape(i)[axis])
    return out


def _part(ctx: LowerContext, x: TensorExpr, axis: int, start: Expr, i: int) -> TensorExpr:
    return ctx.lazy(lambda at: x[replaced(at, axis, at[axis] + start)], i, x.cost)


@sizes("Split")
def _split_sizes(ctx: LowerContext) -> list[Expr]:
    x, parts = ctx.input(0), int_params(ctx, 1)
    axis = ctx.attr("axis") % x.rank
    return fresh_sizes(ctx, *(replaced(x.shape, axis, p) for p in parts))


# ---- Trilu, ReverseSequence ----------------------------------------------------------------------


@lowering("Trilu", "com.microsoft.Trilu")
def _trilu(ctx: LowerContext) -> TensorExpr:
    x = ctx.input(0)
    upper = bool(ctx.attr("upper"))

    def load(at: At) -> Expr:
        k = index(scalar_param(ctx, 1)) if ctx.has(1) else index(0)
        offset = at[-1] - at[-2]
        return tirx.Select(offset >= k if upper else offset <= k, x[at], zero(ctx))

    return ctx.lazy(load, cost=x.cost + 2)


@lowering("ReverseSequence")
def _reverse_sequence(ctx: LowerContext) -> TensorExpr:
    x, lengths = ctx.input(0), ctx.input(1)
    time, batch = ctx.attr("time_axis") % x.rank, ctx.attr("batch_axis") % x.rank

    def load(at: At) -> Expr:
        length = ctx.b.let(index(lengths[at[batch]]))
        source = tirx.Select(at[time] < length, length - 1 - at[time], at[time])
        return x[replaced(at, time, clamp(source, x.shape[time]))]

    return ctx.lazy(load, cost=x.cost + 3)


# ---- blocks --------------------------------------------------------------------------------------


@lowering("DepthToSpace")
def _depth_to_space(ctx: LowerContext) -> TensorExpr:
    x, size = ctx.input(0), index(ctx.attr("blocksize"))
    depth = index(ctx.out_shape()[1])
    columns_first = ctx.attr("mode") == "CRD"

    def source(n: Expr, c: Expr, row: Expr, column: Expr, block: Expr) -> At:
        plane = c * size * size + block if columns_first else block * depth + c
        return (n, plane, row, column)

    place = ctx.destination()
    if place is not None:
        _walk_blocks(ctx, place, lambda *at: x[source(*at)], x.cost)
        return place

    def load(at: At) -> Expr:
        n, c, row, column = at
        block = tirx.floormod(row, size) * size + tirx.floormod(column, size)
        return x[source(n, c, tirx.floordiv(row, size), tirx.floordiv(column, size), block)]

    return ctx.lazy(load, cost=x.cost + 4)


def _walk_blocks(ctx: LowerContext, place: Any, load: Any, cost: int) -> None:
    """Store a DepthToSpace with loops over the blocks, so that no index needs a division."""
    size = ctx.attr("blocksize")
    n, c, rows, columns = ctx.out_shape()
    steps = [tirx.floordiv(index(e), index(size)) for e in (rows, columns)]

    def body(at: At) -> None:
        batch, channel, row, i, column, j = at
        where = (batch, channel, row * size + i, column * size + j)
        place.store(where, load(batch, channel, row, column, i * size + j))

    ctx.b.nest([n, c, steps[0], size, steps[1], size], body, 1 + cost)


@lowering("SpaceToDepth")
def _space_to_depth(ctx: LowerContext) -> TensorExpr:
    x, size = ctx.input(0), index(ctx.attr("blocksize"))
    depth = index(x.shape[1])
    columns_first = ctx.attr("mode") == "CRD"

    def load(at: At) -> Expr:
        n, plane, row, column = at
        area = size * size
        block = tirx.floormod(plane, area) if columns_first else tirx.floordiv(plane, depth)
        channel = tirx.floordiv(plane, area) if columns_first else tirx.floormod(plane, depth)
        i, j = tirx.floordiv(block, size), tirx.floormod(block, size)
        return x[n, channel, row * size + i, column * size + j]

    return ctx.lazy(load, cost=x.cost + 4)
