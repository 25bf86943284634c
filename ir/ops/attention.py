"""Type inference of the attention ops of ai.onnx and of the dialect."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..axes.attention import attention, dialect_attention, linear_attention, rotary
from ..axes.window import causal_convolution
from ..conditions import Relation
from ..dims import Dim, dim_max
from ..graph import Node
from ..registry import InferContext, attribute, op
from ..traits import Trait
from ..types import Shape, TensorType, Type
from . import flops


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
    ctx.require_multiple(hidden, heads, f"a last axis of input {i} that {heads} heads divide")
    return batch, heads, length, hidden // heads


@op(
    "Attention", traits=(Trait.CONTRACTION,), flops=flops.attention(4),
    axes=attention,
)  # fmt: skip
def _infer_attention(ctx: InferContext) -> list[Type]:
    q, k, v = ctx.tensor(0), ctx.tensor(1), ctx.tensor(2)
    if ctx.has(4) != ctx.has(5):
        raise ctx.error("past_key and past_value must be given together")
    if ctx.has(4) and ctx.has(6):
        raise ctx.error("nonpad_kv_seqlen and a past cache exclude each other")
    batch, heads, length, _ = head_shape(ctx, 0, ctx.attr("q_num_heads"))
    keyed = head_shape(ctx, 1, ctx.attr("kv_num_heads"))
    _, kv_heads, new, depth = keyed
    valued = head_shape(ctx, 2, ctx.attr("kv_num_heads"))
    width = valued[3]
    ctx.require_equal(batch, keyed[0], "queries and keys of one batch size")
    ctx.require_same_shape(valued[:3], keyed[:3], "keys and values that differ in width only")
    query_width = head_shape(ctx, 0, ctx.attr("q_num_heads"))[3]
    ctx.require_equal(query_width, depth, "queries and keys of one width")
    ctx.require_multiple(heads, kv_heads, "query heads that the key heads divide")
    keys = ctx.tensor(4).dims[2] + new if ctx.has(4) else new
    if ctx.has(4):
        past = ctx.tensor(4).dims[2]
        ctx.require_same_shape(ctx.tensor(4).dims, (batch, kv_heads, past, depth), "past keys")
        ctx.require_same_shape(ctx.tensor(5).dims, (batch, kv_heads, past, width), "past values")
    if ctx.has(6):
        ctx.require_same_shape(ctx.tensor(6).dims, (batch,), "a length for each of the batch")
        ctx.require_values(6, 0, keys, "lengths within the keys")
    _check_mask(ctx, (batch, heads, length, keys))
    shape = (batch, heads, length, width) if q.rank == 4 else (batch, length, heads * width)
    return [
        q.with_shape(shape),
        k.with_shape((batch, kv_heads, keys, depth)),
        v.with_shape((batch, kv_heads, keys, width)),
        q.with_shape((batch, heads, length, keys)),
    ]


def _check_mask(ctx: InferContext, scores: Shape) -> None:
    if not ctx.has(3):
        return
    mask = ctx.tensor(3)
    if not 1 <= mask.rank <= 4:
        raise ctx.error(f"the mask must have 1 to 4 axes, not {mask}")
    # A mask may be shorter than the keys, of which the rest is masked (ONNX's Attention-24).
    ctx.broadcast_to(mask.dims[:-1], scores[:-1], "a mask")
    ctx.require_at_most(mask.dims[-1], dim_max(scores[-1], 1), "a mask no longer than the keys")


@op(
    "RotaryEmbedding",
    axes=rotary,
)  # fmt: skip
def _infer_rotary(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    batch, _, length, width = head_shape(ctx, 0, ctx.attr("num_heads"))
    rotated = ctx.attr("rotary_embedding_dim") or width
    ctx.require_multiple(rotated, 2, "an even number of rotated elements")
    ctx.require_at_most(rotated, width, "no more rotated elements than a head has")
    if ctx.has(3):
        ctx.require_same_shape(ctx.tensor(3).dims, (batch, length), "a position for each element")
    ctx.require_same_shape(ctx.tensor(1).dims, ctx.tensor(2).dims, "as many sines as cosines")
    for i in (1, 2):
        cache = ctx.tensor(i)
        if cache.rank != (2 if ctx.has(3) else 3):
            raise ctx.error(f"input {i} has {cache.rank} axes")
        ctx.require_equal(2 * cache.dims[-1], rotated, "an angle for two rotated elements")
        if ctx.has(3):
            last = cache.dims[0] - 1
            ctx.require_values(3, 0, last, "positions that the table of angles has")
        else:
            ctx.broadcast_to(cache.dims[:2], (batch, length), "angles")
    return [x]


def _evaluate_attention(node: Node, inputs: list[Any]) -> list[Any]:
    """The formula in float64, for float32 operands."""
    q, k, v, mask = [*inputs, None][:4]
    scale = attribute(node, "scale") or 1.0 / math.sqrt(q.shape[-1])
    wide = [x.astype(np.float64) for x in (q, k, v)]
    scores = scale * wide[0] @ np.swapaxes(wide[1], -1, -2)
    if mask is not None:
        scores = scores + mask
    with np.errstate(invalid="ignore"):
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True, initial=-np.inf))
        weights /= weights.sum(axis=-1, keepdims=True)
        if attribute(node, "guarded"):
            weights = np.where(np.isnan(weights), 0.0, weights)
        return [(weights @ wide[2]).astype(q.dtype)]


@op(
    "Attention",
    domain="kiln",
    traits=(Trait.ANCHOR, Trait.CONTRACTION, Trait.FLOAT_POLYMORPHIC),
    flops=flops.attention(None),
    evaluate=_evaluate_attention,
    arity=(3, 4),
    doc="softmax(scale * q k^T + mask) v: q [B,H,S,D], k [B,H,T,D], v [B,H,T,E], a float mask that "
    "broadcasts to [B,H,S,T]; the result is [B,H,S,E]. Attribute scale: 1/sqrt(D) where it is "
    "missing. A row of scores of nothing but -inf is NaN, as softmax is; with guarded=1 weights "
    "that are NaN count as 0.",
    axes=dialect_attention,
)  # fmt: skip
def _infer_dialect_attention(ctx: InferContext) -> list[Type]:
    q, k, v = (ctx.tensor(i) for i in range(3))
    for x in (q, k, v):
        if x.rank != 4:
            raise ctx.error(f"operands must have 4 axes, not {x}")
    if ctx.has(3):
        _check_dialect_mask(ctx, q, k)
    ctx.require_equal(q.dims[3], k.dims[3], "queries and keys of one width")
    ctx.require_same_shape(k.dims[:3], v.dims[:3], "keys and values that differ in width only")
    return [q.with_shape((*q.dims[:3], v.dims[3]))]


def _check_dialect_mask(ctx: InferContext, q: TensorType, k: TensorType) -> None:
    mask = ctx.tensor(3)
    if not mask.dtype.is_float:
        raise ctx.error(f"the mask is added, so it must be of floats, not {mask}")
    ctx.broadcast_to(mask.dims, (*q.dims[:3], k.dims[2]), "a mask")


# ---- recurrent relatives -------------------------------------------------------------------------


@op(
    "LinearAttention",
    axes=linear_attention,
)  # fmt: skip
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
    if any(ctx.tensor(i).rank != 3 for i in range(3)):
        raise ctx.error("takes queries, keys and values of 3 axes")
    batch, _, length, depth = head_shape(ctx, 0, heads)
    width = head_shape(ctx, 2, kv_heads)[3]
    _require_linear_attention(ctx, (batch, length), kv_heads, depth, width)
    state = ctx.tensor(3) if ctx.has(3) else q
    return [
        q.with_shape((batch, length, heads * width)),
        state.with_shape((batch, kv_heads, depth, width)),
    ]


def _require_linear_attention(
    ctx: InferContext, places: Shape, heads: int, depth: Dim, width: Dim
) -> None:
    """Record that the other inputs fit the queries; ``places`` is the batch and the length."""
    ctx.require_same_shape(ctx.tensor(1).dims, (*places, heads * depth), "keys as wide as queries")
    ctx.require_same_shape(ctx.tensor(2).dims[:2], places, "a value for each key")
    if ctx.has(3):
        shape = (places[0], heads, depth, width)
        ctx.require_same_shape(ctx.tensor(3).dims, shape, "a past state of keys by values")
    if ctx.has(4):
        decay = ctx.tensor(4).dims
        ctx.require_same_shape(decay[:2], places, "a decay for each key")
        ctx.require_multiple(decay[2], heads, "decays that divide into heads")
        why = "one decay a head, or one for each of its elements"
        ctx.require(Relation.BROADCAST_TO, decay[2] // heads, depth, why)
    if ctx.has(5):
        ctx.require_same_shape(ctx.tensor(5).dims[:2], places, "a rate for each key")
        ctx.broadcast_to(ctx.tensor(5).dims[2:], (heads,), "rates")


@op(
    "CausalConvWithState",
    axes=causal_convolution,
)  # fmt: skip
def _infer_causal_conv(ctx: InferContext) -> list[Type]:
    x, weight = ctx.tensor(0), ctx.tensor(1)
    if x.rank != 3 or weight.rank != 3:
        raise ctx.error(f"takes [batch, channels, length] and a depthwise kernel, not {x}")
    if ctx.attr("activation") not in ("none", "silu", "swish"):
        raise ctx.error(f"activation {ctx.attr('activation')!r} is not known")
    batch, channels, _ = x.dims
    taps = weight.dims[2]
    ctx.require_same_shape(weight.dims, (channels, 1, taps), "a kernel for each channel")
    ctx.require_at_most(1, taps, "a kernel that is not empty")
    if ctx.has(2):
        ctx.require_same_shape(ctx.tensor(2).dims, (channels,), "a bias for each channel")
    past = (batch, channels, taps - 1)
    if ctx.has(3):
        ctx.require_same_shape(ctx.tensor(3).dims, past, "the last positions of the past")
    return [x, x.with_shape(past)]
