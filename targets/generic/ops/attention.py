"""Lowerings of ``Attention`` (ai.onnx) and ``kiln.Attention``."""

from __future__ import annotations

import math as pymath
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...tir import math
from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.extents import as_int, index, same_extent
from ...tir.numeric import cast, compute_dtype, round_to
from ...tir.reduce import At, lowest
from ..broadcast import broadcast_load
from ..registry import LowerContext, lowering
from .attention_core import Heads, Load, attend

Score = Callable[[At, Expr], Expr]


@lowering("kiln.Attention")
def _lower_dialect_attention(ctx: LowerContext) -> TensorExpr:
    q, k, v = (ctx.buffered(i) for i in range(3))
    out = ctx.result()
    dtype = q.compute_dtype
    scale = attention_scale(ctx, q.shape[3], dtype)
    mask = _dialect_mask(ctx, dtype)
    batch, count, queries, depth = q.shape
    heads = Heads(
        batch, count, queries, k.shape[2], depth, v.shape[3],
        _loader(q, dtype), _loader(k, dtype), _loader(v, dtype), q.dtype,
    )  # fmt: skip

    def score(at: At, value: Expr) -> Expr:
        return value * scale if mask is None else value * scale + mask(at)

    guarded = bool(ctx.attr("guarded"))
    attend(ctx.b, heads, score, out.store, masked=False, guarded=guarded)
    return out


def _dialect_mask(ctx: LowerContext, dtype: str) -> Callable[[At], Expr] | None:
    types = ctx.input_types
    if not ctx.has(3):
        return None
    q, k, mask = types[0], types[1], types[3]
    assert q is not None and k is not None and mask is not None
    load = broadcast_load(ctx.input(3), mask.dims, (*q.dims[:3], k.dims[2]))
    return lambda at: cast(load(at), dtype)


def _loader(x: TensorExpr, dtype: str) -> Load:
    return lambda b, h, s, d: cast(x[b, h, s, d], dtype)


def attention_scale(ctx: LowerContext, depth: Any, dtype: str) -> Expr:
    """The factor of the scores: the attribute ``scale``, or ``1 / sqrt(depth)`` without it."""
    given = ctx.attr("scale")
    if given:
        return tirx.const(given, dtype)
    known = as_int(depth)
    if known is not None:
        return tirx.const(1 / pymath.sqrt(max(known, 1)), dtype)
    return tirx.const(1, dtype) / tirx.sqrt(cast(index(depth), dtype))


# ---- ai.onnx -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rows:
    """A tensor seen as [batch, heads, sequence, width], whatever its axes are in memory."""

    tensor: BufferTensor
    shape: tuple[Any, Any, Any, Any]
    heads_last: bool

    def load(self, b: Expr, h: Expr, s: Expr, d: Expr) -> Expr:
        return self.tensor[self.place(b, h, s, d)]

    def store(self, at: Sequence[Expr], value: Expr) -> None:
        self.tensor.store(self.place(*at), value)

    def place(self, b: Expr, h: Expr, s: Expr, d: Expr) -> At:
        return (b, s, h, d) if self.heads_last else (b, h, s, d)


def quotient(a: Any, b: Any) -> Any:
    """``a // b``, an int where both are constant."""
    known = as_int(a), as_int(b)
    if known[0] is not None and known[1] is not None:
        return known[0] // known[1]
    return 1 if same_extent(a, b) else tirx.floordiv(index(a), index(b))


def rows_of(ctx: LowerContext, x: BufferTensor, heads: Any) -> Rows:
    """``x`` by heads; three axes hold all heads in the last one."""
    if x.rank == 4:
        return Rows(x, tuple(x.shape), False)
    batch, length, hidden = x.shape
    width = quotient(hidden, heads)
    view = ctx.b.view(x, (batch, length, heads, width))
    return Rows(view, (batch, heads, length, width), True)


@lowering("Attention")
def _lower_attention(ctx: LowerContext) -> list[TensorExpr]:
    q = rows_of(ctx, ctx.buffered(0), ctx.attr("q_num_heads"))
    k = rows_of(ctx, ctx.buffered(1), ctx.attr("kv_num_heads"))
    v = rows_of(ctx, ctx.buffered(2), ctx.attr("kv_num_heads"))
    present: list[TensorExpr] = [_as_tensor(ctx, k, 1), _as_tensor(ctx, v, 2)]
    if ctx.has(4):
        k, v = _extended(ctx, 4, k, 1), _extended(ctx, 5, v, 2)
        present = [k.tensor, v.tensor]
    out = rows_of(ctx, result := ctx.result(), q.shape[1])
    group = index(quotient(q.shape[1], k.shape[1]))
    products = ctx.result(3) if len(ctx.node.outputs) > 3 else None
    scaling = _Scaling(ctx, q.tensor.dtype, q.shape[3])
    heads = Heads(
        *q.shape[:3], k.shape[2], q.shape[3], v.shape[3],
        lambda b, h, s, d: scaling.operand(q.load(b, h, s, d)),
        lambda b, h, t, d: scaling.operand(k.load(b, tirx.floordiv(h, group), t, d)),
        lambda b, h, t, e: cast(v.load(b, tirx.floordiv(h, group), t, e), scaling.dtype),
        scaling.element,
    )  # fmt: skip
    score = _onnx_score(ctx, heads, scaling, products)
    wanted = products is not None and ctx.attr("qk_matmul_output_mode") == 3
    attend(ctx.b, heads, score, out.store, products.store if products and wanted else None)
    results: list[TensorExpr] = [result, *present]
    return [*results, products] if products is not None else results


class _Scaling:
    """How scores are scaled: the product is multiplied by the scale.

    For bfloat16 both operands are multiplied by its root instead, and each step is rounded, as in
    the function body of the op.
    """

    def __init__(self, ctx: LowerContext, element: str, depth: Any) -> None:
        self._b = ctx.b
        self.element = element
        self.dtype = compute_dtype(element)
        self._early = element == "bfloat16"
        scale = attention_scale(ctx, depth, self.dtype)
        self._factor = round_to(tirx.sqrt(scale), element) if self._early else scale

    def step(self, value: Expr) -> Expr:
        return self._b.let(round_to(self._b.let(value), self.element) if self._early else value)

    def operand(self, value: Expr) -> Expr:
        return self.step(value * self._factor) if self._early else value

    def product(self, value: Expr) -> Expr:
        return self.step(value if self._early else value * self._factor)


def _as_tensor(ctx: LowerContext, x: Rows, output: int) -> TensorExpr:
    """``x`` as output ``output`` of shape [batch, heads, sequence, width]."""
    if output >= len(ctx.node.outputs):
        return x.tensor
    return ctx.lazy(lambda at: x.load(*at), output)


def _extended(ctx: LowerContext, past: int, new: Rows, output: int) -> Rows:
    """The rows of the cache (input ``past``), followed by those of ``new``, in memory."""
    old = ctx.input(past)
    batch, heads, length, width = new.shape
    before = old.shape[2]
    shape = (batch, heads, index(before) + index(length), width)
    if output < len(ctx.node.outputs):
        out = ctx.result(output)
    else:
        out = ctx.b.workspace(shape, old.dtype)

    def copy_new(at: At) -> None:
        b, h, s, d = at
        out.store((b, h, index(before) + s, d), new.load(b, h, s, d))

    ctx.b.nest(tuple(old.shape), lambda at: out.store(at, old[at]))
    ctx.b.nest((batch, heads, length, width), copy_new)
    return Rows(out, (batch, heads, out.shape[2], width), False)


def _onnx_score(
    ctx: LowerContext, a: Heads, scaling: _Scaling, products: BufferTensor | None
) -> Score:
    """The score of a product: scaled, capped, biased. ``products`` gets what output 3 asks for."""
    cap = ctx.attr("softcap") or 0.0
    biases = [*_mask_bias(ctx, a), *_position_biases(ctx, a)]

    def keep(stage: int, at: At, value: Expr) -> None:
        if products is not None and ctx.attr("qk_matmul_output_mode") == stage:
            products.store(at, value)

    def score(at: At, value: Expr) -> Expr:
        value = scaling.product(value)
        keep(0, at, value)
        if cap > 0:
            limit = tirx.const(cap, a.dtype)
            value = scaling.step(math.tanh(ctx.b, ctx.b.let(value / limit)) * limit)
        keep(1, at, value)
        for bias in biases:
            value = scaling.step(bias(at, value))
        keep(2, at, value)
        return value

    return score


def _unless(allowed: Expr, value: Expr, dtype: str) -> Expr:
    return tirx.Select(allowed, value, lowest(dtype))


def _mask_bias(ctx: LowerContext, a: Heads) -> list[Score]:
    """The mask is added, or if it is bool, gives -inf where false. Keys past its end are masked."""
    if not ctx.has(3):
        return []
    mask = ctx.input(3)
    shorter = not same_extent(mask.shape[-1], a.keys)

    def bias(at: At, value: Expr) -> Expr:
        where = clamped(at[4 - mask.rank :], mask.shape, exact_last=not shorter)
        if mask.compute_dtype == "bool":
            value = _unless(mask[where], value, a.dtype)
        else:
            value = value + cast(mask[where], a.dtype)
        return _unless(at[3] < index(mask.shape[-1]), value, a.dtype) if shorter else value

    return [bias]


def clamped(at: Sequence[Expr], shape: Sequence[Any], exact_last: bool) -> At:
    """The index ``at`` into a tensor that broadcasts: 0 along axes of extent 1.

    The last axis may be shorter, so its index is clamped, unless ``exact_last``.
    """
    where = []
    for axis, (i, extent) in enumerate(zip(at, shape, strict=True)):
        last = axis == len(shape) - 1
        if as_int(extent) == 1:
            where.append(index(0))
        elif exact_last if last else as_int(extent) is not None:
            where.append(i)
        else:
            where.append(tirx.min(i, index(extent) - 1))
    return tuple(where)


def _position_biases(ctx: LowerContext, a: Heads) -> list[Score]:
    """-inf for keys after the query, outside of its window, or past the cache's length."""
    left, right = ctx.attr("left_window_size"), ctx.attr("right_window_size")
    if ctx.attr("is_causal"):
        right = 0
    biases: list[Score] = []

    def window(at: At, value: Expr) -> Expr:
        position = at[2] + _offset(ctx, a, at[0])
        if right >= 0:
            value = _unless(at[3] <= position + right, value, a.dtype)
        return value if left < 0 else _unless(at[3] >= position - left, value, a.dtype)

    if left >= 0 or right >= 0:
        biases.append(window)
    if ctx.has(6):
        lengths = ctx.input(6)
        biases.append(lambda at, value: _unless(at[3] < index(lengths[at[0]]), value, a.dtype))
    return biases


def _offset(ctx: LowerContext, a: Heads, b: Expr) -> Expr:
    """How many keys come before the first query of batch entry ``b``."""
    if ctx.has(4):
        return index(ctx.input(4).shape[2])
    if ctx.has(6):
        return index(ctx.input(6)[b]) - index(a.queries)
    return index(0)
