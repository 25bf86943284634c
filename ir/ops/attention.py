"""Type inference of the attention ops of ai.onnx and of the dialect."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dims import Dim
from ..graph import Node
from ..registry import InferContext, attribute, op
from ..shapes import broadcast_to
from ..types import TensorType, Type


def head_shape(ctx: InferContext, i: int, heads: int | None) -> tuple[Dim, Dim, Dim, Dim]:
    """Input ``i`` as [batch, heads, sequence, width]; three axes hold all heads in the last."""
    x = ctx.tensor(i)
    if x.rank == 4:
        batch, count, length, width = x.dims
        return batch, count, length, width
    if x.rank != 3:
        raise ctx.error(f"input {i} must have 3 or 4 axes, not {x}")
    if not heads:
        raise ctx.error("inputs of 3 axes need the numbers of heads")
    batch, length, hidden = x.dims
    if isinstance(hidden, int) and hidden % heads:
        raise ctx.error(f"{heads} heads do not divide the last axis of {x}")
    return batch, heads, length, hidden // heads


@op("Attention")
def _infer_attention(ctx: InferContext) -> list[Type]:
    q, k, v = ctx.tensor(0), ctx.tensor(1), ctx.tensor(2)
    if ctx.has(4) != ctx.has(5):
        raise ctx.error("past_key and past_value must be given together")
    if ctx.has(4) and ctx.has(6):
        raise ctx.error("nonpad_kv_seqlen and a past cache exclude each other")
    batch, heads, length, _ = head_shape(ctx, 0, ctx.attr("q_num_heads"))
    _, kv_heads, new, depth = head_shape(ctx, 1, ctx.attr("kv_num_heads"))
    width = head_shape(ctx, 2, ctx.attr("kv_num_heads"))[3]
    if isinstance(heads, int) and isinstance(kv_heads, int) and heads % kv_heads:
        raise ctx.error(f"{kv_heads} key heads do not divide {heads} query heads")
    keys = ctx.tensor(4).dims[2] + new if ctx.has(4) else new
    _check_mask(ctx)
    shape = (batch, heads, length, width) if q.rank == 4 else (batch, length, heads * width)
    return [
        q.with_shape(shape),
        k.with_shape((batch, kv_heads, keys, depth)),
        v.with_shape((batch, kv_heads, keys, width)),
        q.with_shape((batch, heads, length, keys)),
    ]


def _check_mask(ctx: InferContext) -> None:
    if ctx.has(3) and not 1 <= ctx.tensor(3).rank <= 4:
        raise ctx.error(f"the mask must have 1 to 4 axes, not {ctx.tensor(3)}")


@op("RotaryEmbedding")
def _infer_rotary(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    width = head_shape(ctx, 0, ctx.attr("num_heads"))[3]
    rotated = ctx.attr("rotary_embedding_dim") or width
    for i in (1, 2):
        cache = ctx.tensor(i)
        if cache.rank != (2 if ctx.has(3) else 3):
            raise ctx.error(f"input {i} has {cache.rank} axes")
        half = cache.dims[-1]
        if isinstance(half, int) and isinstance(rotated, int) and 2 * half != rotated:
            raise ctx.error(f"input {i} holds {half} angles for {rotated} rotated elements")
    return [x]


def _evaluate_attention(node: Node, inputs: list[Any]) -> list[Any]:
    """The formula in float64 (float32 operands), one array at a time."""
    q, k, v, mask = [*inputs, None][:4]
    scale = attribute(node, "scale") or 1.0 / math.sqrt(q.shape[-1])
    wide = [x.astype(np.float64) for x in (q, k, v)]
    scores = scale * wide[0] @ np.swapaxes(wide[1], -1, -2)
    if mask is not None:
        scores = scores + mask
    peak = scores.max(axis=-1, keepdims=True, initial=-np.inf)
    weights = np.exp(scores - np.where(np.isneginf(peak), 0.0, peak))
    total = weights.sum(axis=-1, keepdims=True)
    result = weights / np.where(total == 0, 1.0, total) @ wide[2]
    return [result.astype(q.dtype)]


@op(
    "Attention",
    domain="kiln",
    evaluate=_evaluate_attention,
    arity=(3, 4),
    doc="softmax(scale * q k^T + mask) v: q [B,H,S,D], k [B,H,T,D], v [B,H,T,E], a float mask that "
    "broadcasts to [B,H,S,T]; the result is [B,H,S,E]. A row whose mask is -inf throughout gives "
    "zeros. Attribute scale: 1/sqrt(D) where it is missing.",
)
def _infer_dialect_attention(ctx: InferContext) -> list[Type]:
    q, k, v = (ctx.tensor(i) for i in range(3))
    for x in (q, k, v):
        if x.rank != 4:
            raise ctx.error(f"operands must have 4 axes, not {x}")
    if ctx.has(3):
        _check_dialect_mask(ctx, q, k)
    return [q.with_shape((*q.dims[:3], v.dims[3]))]


def _check_dialect_mask(ctx: InferContext, q: TensorType, k: TensorType) -> None:
    mask = ctx.tensor(3)
    if not mask.dtype.is_float:
        raise ctx.error(f"the mask is added, so it must be of floats, not {mask}")
    broadcast_to(mask.dims, (*q.dims[:3], k.dims[2]))


# ---- recurrent relatives -------------------------------------------------------------------------


@op("LinearAttention")
def _infer_linear_attention(ctx: InferContext) -> list[Type]:
    rule = ctx.attr("update_rule")
    if rule not in ("linear", "gated", "delta", "gated_delta"):
        raise ctx.error(f"update_rule {rule!r} is not known")
    for i, part in ((4, "gated"), (5, "delta")):
        if ctx.has(i) != (part in rule):
            raise ctx.error(f"update_rule {rule!r} does not fit its inputs (input {i})")
    q = ctx.tensor(0)
    heads, kv_heads = ctx.attr("q_num_heads"), ctx.attr("kv_num_heads")
    if kv_heads < 1 or heads % kv_heads:
        raise ctx.error(f"{kv_heads} key heads do not divide {heads} query heads")
    batch, _, length, depth = head_shape(ctx, 0, heads)
    width = head_shape(ctx, 2, kv_heads)[3]
    state = ctx.tensor(3) if ctx.has(3) else q
    return [
        q.with_shape((batch, length, heads * width)),
        state.with_shape((batch, kv_heads, depth, width)),
    ]


@op("CausalConvWithState")
def _infer_causal_conv(ctx: InferContext) -> list[Type]:
    x, weight = ctx.tensor(0), ctx.tensor(1)
    if x.rank != 3 or weight.rank != 3:
        raise ctx.error(f"takes [batch, channels, length] and a depthwise kernel, not {x}")
    if ctx.attr("activation") not in ("none", "silu", "swish"):
        raise ctx.error(f"activation {ctx.attr('activation')!r} is not known")
    return [x, x.with_shape((*x.dims[:2], weight.dims[2] - 1))]
