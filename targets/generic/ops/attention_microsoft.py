"""Lowerings of com.microsoft's ``MultiHeadAttention`` and ``Attention``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.contract import Contraction, contract
from ...tir.extents import index, product
from ...tir.numeric import cast
from ...tir.reduce import At, lowest
from ...tir.scratch import slice_of
from ..registry import LowerContext, lowering
from .attention import Rows, attention_scale, clamped, quotient, rows_of
from .attention_core import Heads, attend

Score = Callable[[At, Expr], Expr]


@lowering("com.microsoft.MultiHeadAttention")
def _lower_multi_head(ctx: LowerContext) -> list[TensorExpr]:
    heads = ctx.attr("num_heads")
    q, k, v = (_biased(ctx, i, heads) for i in range(3))
    results = [ctx.result(i) for i in range(len(ctx.node.outputs))]
    if ctx.has(6) or len(results) > 1:
        past = (ctx.input(6), ctx.input(7)) if ctx.has(6) else (None, None)
        k = _appended(ctx, past[0], k, results[1] if len(results) > 1 else None)
        v = _appended(ctx, past[1], v, results[2] if len(results) > 2 else None)
    _attend(ctx, q, k, v, results[0], mask=4, added=5)
    return list(results)


def _biased(ctx: LowerContext, i: int, heads: int) -> Rows:
    """Input ``i`` by heads, plus its part of the bias."""
    x = ctx.buffered(i)
    if not ctx.has(3) or x.rank == 4:
        return rows_of(ctx, x, heads)
    bias = ctx.input(3)
    start = _bias_start(ctx, i)
    out = ctx.b.workspace(x.shape, x.dtype, "biased")
    ctx.b.nest(x.shape, lambda at: out.store(at, x[at] + bias[at[2] + start]), cost=2)
    return rows_of(ctx, out, heads)


def _bias_start(ctx: LowerContext, i: int) -> Expr:
    """Where the bias of input ``i`` begins: those of query, key and value follow each other."""
    if i == 0:
        return index(0)
    query = index(ctx.input(0).shape[2])
    if i == 1:
        return query
    value = ctx.input(2)
    return index(ctx.input(3).shape[0]) - index(value.shape[2])


def _appended(
    ctx: LowerContext, past: TensorExpr | None, new: Rows, out: BufferTensor | None
) -> Rows:
    """``past`` followed by ``new``, in memory, as [batch, heads, length, width]."""
    batch, heads, length, width = new.shape
    before = index(past.shape[2]) if past is not None else index(0)
    if out is None:
        shape = (batch, heads, before + index(length), width)
        out = ctx.b.workspace(shape, new.tensor.dtype, "present")
    target = out
    if past is not None:
        old = past
        ctx.b.nest(old.shape, lambda at: target.store(at, old[at]))

    def copy(at: At) -> None:
        b, h, s, d = at
        target.store((b, h, before + s, d), new.load(b, h, s, d))

    ctx.b.nest((batch, heads, length, width), copy)
    return Rows(target, (batch, heads, target.shape[2], width), False)


def _attend(
    ctx: LowerContext, q: Rows, k: Rows, v: Rows, result: BufferTensor, mask: int, added: int
) -> None:
    out = rows_of(ctx, result, q.shape[1])
    element = q.tensor.dtype
    heads = Heads(
        *q.shape[:3], k.shape[2], q.shape[3], v.shape[3], q.load, k.load, v.load, element,
    )  # fmt: skip
    scale = attention_scale(ctx, q.shape[3], heads.dtype)
    biases = _biases(ctx, heads, mask, added)

    def score(at: At, value: Expr) -> Expr:
        value = value * scale
        for bias in biases:
            value = bias(at, value)
        return value

    attend(ctx.b, heads, score, out.store)


def _biases(ctx: LowerContext, a: Heads, mask: int, added: int) -> list[Score]:
    biases: list[Score] = []
    if ctx.has(added):
        bias = ctx.input(added)

        def add(at: At, value: Expr) -> Expr:
            where = clamped(at[4 - bias.rank :], bias.shape, exact_last=True)
            return value + cast(bias[where], a.dtype)

        biases.append(add)
    if ctx.has(mask):
        biases.append(_key_mask(ctx, ctx.input(mask), a))
    if ctx.attr("unidirectional"):
        past = index(a.keys) - index(a.queries)
        biases.append(lambda at, value: tirx.Select(at[3] <= at[2] + past, value, lowest(a.dtype)))
    return biases


def _key_mask(ctx: LowerContext, mask: TensorExpr, a: Heads) -> Score:
    """A mask of lengths [batch] or of flags [batch, (queries,) keys]."""
    filtered = tirx.const(ctx.attr("mask_filter_value"), a.dtype)
    zero = tirx.const(0, a.dtype)

    def bias(at: At, value: Expr) -> Expr:
        b, _, s, t = at
        if mask.rank == 1:
            visible = t < cast(mask[b], "int64")
        else:
            where = (b, t) if mask.rank == 2 else (b, s, t)
            visible = mask[clamped(where, mask.shape, exact_last=True)] > 0
        return value + tirx.Select(visible, zero, filtered)

    return bias


# ---- with the projection -------------------------------------------------------------------------


@lowering("com.microsoft.Attention")
def _lower_attention(ctx: LowerContext) -> list[TensorExpr]:
    q, k, v = _projected(ctx)
    results = [ctx.result(i) for i in range(len(ctx.node.outputs))]
    if ctx.has(4) or len(results) > 1:
        k = _appended(ctx, _half(ctx, 0), k, slice_of(results[1], [0]) if results[1:] else None)
        v = _appended(ctx, _half(ctx, 1), v, slice_of(results[1], [1]) if results[1:] else None)
    _attend(ctx, q, k, v, results[0], mask=3, added=5)
    return list(results)


def _half(ctx: LowerContext, part: int) -> TensorExpr | None:
    """The past keys (0) or values (1), which are stacked in one input."""
    if not ctx.has(4):
        return None
    past = ctx.input(4)
    return TensorExpr(past.dtype, past.shape[1:], lambda at: past.load((index(part), *at)))


def _projected(ctx: LowerContext) -> tuple[Rows, Rows, Rows]:
    """Queries, keys and values: products with ranges of the weights' columns."""
    third = quotient(ctx.input(1).shape[1], 3)
    q, k, v = ctx.attr("qkv_hidden_sizes") or (third,) * 3
    second, last = index(q), index(q) + index(k)
    return _project(ctx, index(0), q), _project(ctx, second, k), _project(ctx, last, v)


def _project(ctx: LowerContext, start: Expr, size: Any) -> Rows:
    x, weights = ctx.buffered(0), ctx.buffered(1)
    bias = ctx.input(2) if ctx.has(2) else None
    batch, length, hidden = x.shape
    rows = product((batch, length))
    flat = ctx.b.view(x, (rows, hidden))
    dtype = x.compute_dtype
    out = ctx.b.workspace((rows, size), dtype, "projection")

    def store(_at: At, i: Expr, j: Expr, value: Expr) -> None:
        out.store((i, j), value if bias is None else value + cast(bias[start + j], dtype))

    contraction = Contraction(
        (), rows, size, (hidden,),
        lambda _at, i, k: flat[i, k[0]],
        lambda _at, k, j: cast(weights[k[0], start + j], dtype),
        store, dtype,
    )  # fmt: skip
    contract(ctx.b, contraction, "columns")
    return rows_of(ctx, ctx.b.view(out, (batch, length, size)), ctx.attr("num_heads"))
