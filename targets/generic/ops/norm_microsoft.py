"""Lowerings of com.microsoft's layer normalizations with a sum in front."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.extents import index, product
from ...tir.numeric import cast
from ...tir.reduce import SUM, At, Group, for_groups
from ..broadcast import aligned
from ..registry import LowerContext, lowering
from .norm_rows import RowNorm, normalize_rows


@lowering("com.microsoft.SkipLayerNormalization")
def _lower_skip(ctx: LowerContext) -> list[TensorExpr]:
    return _normalized_sum(ctx, centred=True, beta=3, bias=4)


@lowering("com.microsoft.SkipSimplifiedLayerNormalization")
def _lower_skip_simplified(ctx: LowerContext) -> list[TensorExpr]:
    return _normalized_sum(ctx, centred=False, beta=None, bias=3)


def _normalized_sum(
    ctx: LowerContext, centred: bool, beta: int | None, bias: int
) -> list[TensorExpr]:
    x, skip = ctx.input(0), aligned(ctx, 1)
    dtype = x.compute_dtype

    def total(at: At) -> Expr:
        value = x[at] + cast(skip(at), dtype)
        return value + cast(ctx.input(bias)[at[-1]], dtype) if ctx.has(bias) else value

    return _normalize(ctx, total, 3, (1, 2), 2, beta, centred)


def _normalize(
    ctx: LowerContext, load: Callable[[At], Expr], sum_output: int,
    statistics: tuple[int | None, int | None], gamma: int, beta: int | None, centred: bool,
) -> list[TensorExpr]:  # fmt: skip
    """Normalize ``load`` over the last axis of output 0; the sums are output ``sum_output``."""
    results = [ctx.result(i) for i in range(len(ctx.node.outputs))]
    out = results[0]
    if sum_output < len(results):
        total = results[sum_output]
    else:
        total = ctx.b.workspace(out.shape, out.compute_dtype, "sum")
    ctx.b.nest(out.shape, lambda at: total.store(at, load(at)), cost=4)
    shape = [product(out.shape[:-1]), out.shape[-1]]
    mean, inverse = (_statistic(ctx, results, i, shape[:1]) for i in statistics)
    scale = ctx.buffered(gamma)
    shift = ctx.buffered(beta) if beta is not None and ctx.has(beta) else None
    norm = RowNorm(
        ctx.b.view(total, shape), ctx.b.view(out, shape), [1], ctx.attr("epsilon"),
        lambda at: scale[at[-1]], None if shift is None else lambda at: shift[at[-1]],
        centred, mean, inverse,
    )  # fmt: skip
    normalize_rows(ctx.b, norm)
    return list(results)


def _statistic(
    ctx: LowerContext, results: list[BufferTensor], i: int | None, shape: list[object]
) -> BufferTensor | None:
    return ctx.b.view(results[i], shape) if i is not None and i < len(results) else None


@lowering("com.microsoft.EmbedLayerNormalization")
def _lower_embed(ctx: LowerContext) -> list[TensorExpr | None]:
    words, positions = ctx.buffered(2), ctx.buffered(3)
    segments = ctx.buffered(4) if ctx.has(1) and ctx.has(4) else None

    def total(at: At) -> Expr:
        b, s, e = at
        place = ctx.input(8)[b, s] if ctx.has(8) else s
        value = _row(words, ctx.input(0)[b, s], e) + _row(positions, place, e)
        return value if segments is None else value + _row(segments, ctx.input(1)[b, s], e)

    results = _normalize(ctx, total, 2, (None, None), 5, 6, centred=True)
    if len(results) > 1:
        _count_words(ctx, results[1])
    return list(results)


def _row(table: TensorExpr, row: Expr, column: Expr) -> Expr:
    """``table[row, column]``; rows out of range are clamped, so that the load is in bounds."""
    last = index(table.shape[0]) - 1
    inside = tirx.max(tirx.min(cast(row, "int64"), last), index(0))
    return table[inside, column]


def _count_words(ctx: LowerContext, out: TensorExpr) -> None:
    assert isinstance(out, BufferTensor)
    one, zero = tirx.const(1, "int32"), tirx.const(0, "int32")
    if not ctx.has(7):
        ctx.b.nest(out.shape, lambda at: out.store(at, zero))
        return
    mask = ctx.input(7)

    def program(g: Group) -> None:
        total = g.fold(
            lambda at: tirx.Select(mask[at] != tirx.const(0, mask.compute_dtype), one, zero),
            SUM, "int32",
        )  # fmt: skip
        g.once(lambda at: out.store(at, total()))

    for_groups(ctx.b, mask.shape, [1], program, "int32")
