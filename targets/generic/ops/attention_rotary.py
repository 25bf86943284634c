"""Lowerings of ``RotaryEmbedding``: each pair of elements is rotated by its position's angle."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ...tir.builder import Expr, TensorExpr
from ...tir.extents import as_int, index
from ...tir.numeric import cast
from ...tir.reduce import At
from ..registry import LowerContext, lowering
from .attention import Rows, quotient, rows_of

# From (batch, head, position) and the number of the pair to cosine and sine.
Angles = Callable[[At, Expr], tuple[Expr, Expr]]


@lowering("RotaryEmbedding")
def _lower_rotary(ctx: LowerContext) -> TensorExpr:
    x = rows_of(ctx, ctx.buffered(0), ctx.attr("num_heads"))
    cosines, sines = ctx.buffered(1), ctx.buffered(2)

    def angles(at: At, pair: Expr) -> tuple[Expr, Expr]:
        batch, _, s = at
        if not ctx.has(3):
            return cosines[batch, s, pair], sines[batch, s, pair]
        row = _cache_row(cosines, ctx.input(3)[batch, s])
        return cosines[row, pair], sines[row, pair]

    return _rotate(ctx, x, ctx.attr("rotary_embedding_dim") or x.shape[3], angles)


@lowering("com.microsoft.RotaryEmbedding")
def _lower_microsoft_rotary(ctx: LowerContext) -> TensorExpr:
    cosines, sines = ctx.buffered(2), ctx.buffered(3)
    rotated = ctx.attr("rotary_embedding_dim") or 2 * cosines.shape[1]
    x = _microsoft_rows(ctx, rotated)
    positions = ctx.input(1)

    def angles(at: At, pair: Expr) -> tuple[Expr, Expr]:
        batch, _, s = at
        place = positions[0] + s if positions.rank == 1 else positions[batch, s]
        row = _cache_row(cosines, place)
        return cosines[row, pair], sines[row, pair]

    return _rotate(ctx, x, rotated, angles)


def _microsoft_rows(ctx: LowerContext, rotated: Any) -> Rows:
    x = ctx.buffered(0)
    heads = ctx.attr("num_heads")
    if x.rank == 3 and not heads:  # heads as wide as what is rotated
        heads = quotient(x.shape[2], rotated)
    return rows_of(ctx, x, heads)


def _cache_row(cache: TensorExpr, position: Expr) -> Expr:
    """The row of a position; clamped, so that the load is in bounds."""
    last = index(cache.shape[0]) - 1
    return tirx.max(tirx.min(cast(position, "int64"), last), index(0))


def _rotate(ctx: LowerContext, x: Rows, rotated: Any, angles: Angles) -> TensorExpr:
    """Rotate the first ``rotated`` elements of every head; pairs are halves apart or adjacent."""
    result = ctx.result()
    out = Rows(ctx.b.view(result, x.tensor.shape), x.shape, x.heads_last)
    half = quotient(rotated, 2)
    batch, heads, length, width = x.shape
    dtype = x.tensor.compute_dtype

    def rotate(at: At, pair: Expr) -> None:
        if ctx.attr("interleaved"):
            first, second = pair * 2, pair * 2 + 1
        else:
            first, second = pair, pair + index(half)
        cosine, sine = (ctx.b.let(cast(v, dtype)) for v in angles(at, pair))
        n, h, s = at
        a, b = ctx.b.let(x.load(n, h, s, first)), ctx.b.let(x.load(n, h, s, second))
        out.store((*at, first), cosine * a - sine * b)
        out.store((*at, second), sine * a + cosine * b)

    def row(place: At) -> None:
        b, *middle = place
        s, h = middle if x.heads_last else reversed(middle)
        with ctx.b.loop(half) as pair:
            rotate((b, h, s), pair)
        with ctx.b.loop(index(width) - 2 * index(half)) as rest:
            d = rest + 2 * index(half)
            out.store((b, h, s, d), x.load(b, h, s, d))

    order = (batch, length, heads) if x.heads_last else (batch, heads, length)
    ctx.b.nest(order, row, cost=4 * (as_int(width) or 64), sequential_last=True)
    return result
