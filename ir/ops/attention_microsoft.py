"""Type inference of com.microsoft's attention ops, as onnxruntime defines them."""

from __future__ import annotations

from ..axes.attention import multi_head, projected_attention, rotary_microsoft
from ..conditions import Relation
from ..dims import Dim
from ..registry import InferContext, op
from ..traits import Trait
from ..types import TensorType, Type
from . import flops
from .attention import head_shape
from .attention_microsoft_evaluate import attention, multi_head_attention, rotary_embedding

DOMAIN = "com.microsoft"
MASK_VALUE = -10000.0


@op(
    "RotaryEmbedding", domain=DOMAIN, arity=(4, 4), evaluate=rotary_embedding,
    defaults={
        "interleaved": 0, "num_heads": 0, "rotary_embedding_dim": 0, "scale": 1.0,
        "is_packed_batching": 0,
    },
    doc="Turns pairs of elements of every head by the angle of their position. Inputs: x "
    "[batch, length, hidden] or [batch, heads, length, width], position ids [1] (of the first "
    "element) or [batch, length], cosines and sines [positions, pairs].",
    axes=rotary_microsoft,
)  # fmt: skip
def _infer_rotary(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    if ctx.attr("scale") != 1.0 or ctx.attr("is_packed_batching"):
        raise ctx.error("scale and is_packed_batching are not supported")
    if x.rank not in (3, 4) or ctx.tensor(2).rank != 2 or ctx.tensor(3).rank != 2:
        raise ctx.error(f"takes 3 or 4 axes and caches of 2, not {x}, {ctx.tensor(2)}")
    _check_rotary(ctx, x)
    return [x]


def _check_rotary(ctx: InferContext, x: TensorType) -> None:
    """Record that the angles have an entry for each pair of a head's elements and each position."""
    rows, pairs = ctx.tensor(2).dims
    ctx.require_same_shape(ctx.tensor(3).dims, (rows, pairs), "as many sines as cosines")
    width: Dim = x.dims[-1]
    if x.rank == 3:
        heads = ctx.attr("num_heads") or 1
        ctx.require_multiple(width, heads, f"a last axis that {heads} heads divide")
        width = width // heads
    turned = ctx.attr("rotary_embedding_dim")
    if turned:
        ctx.require_at_most(turned, width, "no more turned elements than a head has")
        ctx.require_equal(2 * pairs, turned, "an angle for two turned elements")
    elif x.rank == 3 and not ctx.attr("num_heads"):
        ctx.require_multiple(width, 2 * pairs, "heads that are as wide as the angles")
    else:
        ctx.require_equal(2 * pairs, width, "an angle for two elements of a head")
    length, places = x.dims[-2], ctx.tensor(1)
    if places.rank == 1:
        ctx.require_same_shape(places.dims, (1,), "the position of the first element")
        ctx.require_values(1, 0, rows - length, "positions that the table of angles has")
    else:
        wanted = (x.dims[0], length)
        ctx.require_same_shape(places.dims, wanted, "a position for each element")
        ctx.require_values(1, 0, rows - 1, "positions that the table of angles has")


@op(
    "MultiHeadAttention", domain=DOMAIN, arity=(1, 8), evaluate=multi_head_attention,
    traits=(Trait.CONTRACTION,), flops=flops.attention(6),
    defaults={"mask_filter_value": MASK_VALUE, "unidirectional": 0},
    doc="Attention of projected operands. Inputs: query, key, value (each [batch, length, heads * "
    "width]; key and value also [batch, heads, length, width]), bias, key padding mask, attention "
    "bias, past key, past value; outputs: the result, present key, present value.",
    axes=multi_head,
)  # fmt: skip
def _infer_multi_head(ctx: InferContext) -> list[Type]:
    if not ctx.has(1) or not ctx.has(2) or ctx.tensor(0).rank != 3 or ctx.tensor(1).rank == 5:
        raise ctx.error("packed queries, keys and values are not supported")
    if ctx.has(6) != ctx.has(7):
        raise ctx.error("past key and past value must be given together")
    heads = ctx.attr("num_heads")
    batch, _, length, depth = head_shape(ctx, 0, heads)
    keyed, valued = head_shape(ctx, 1, heads), head_shape(ctx, 2, heads)
    ctx.require_same_shape(keyed, (batch, heads, keyed[2], depth), "queries and keys that fit")
    ctx.require_same_shape(valued[:3], keyed[:3], "keys and values that differ in width only")
    keys, width = keyed[2], valued[3]
    if ctx.has(3):
        columns = heads * (2 * depth + width)
        ctx.require_same_shape(ctx.tensor(3).dims, (columns,), "a bias for each column")
    if ctx.has(6):
        past = ctx.tensor(6).dims[2] if ctx.tensor(6).rank == 4 else 0
        for i, size in ((6, depth), (7, width)):
            shape = batch, heads, past, size
            ctx.require_same_shape(ctx.tensor(i).dims, shape, "past keys and values that fit")
    keys = keys + ctx.tensor(6).dims[2] if ctx.has(6) else keys
    check_key_mask(ctx, 4, batch, keys)
    q, k, v = (ctx.tensor(i) for i in range(3))
    return [
        q.with_shape((batch, length, heads * width)),
        k.with_shape((batch, heads, keys, depth)),
        v.with_shape((batch, heads, keys, width)),
    ]


@op(
    "Attention", domain=DOMAIN, arity=(2, 6), evaluate=attention,
    traits=(Trait.CONTRACTION,), flops=flops.projected_attention,
    defaults={
        "mask_filter_value": MASK_VALUE, "unidirectional": 0, "do_rotary": 0,
        "past_present_share_buffer": 0,
    },
    doc="Attention with its projection in front. Inputs: x [batch, length, hidden], weights "
    "[hidden, query + key + value], bias, mask, past [2, batch, heads, length, width], attention "
    "bias; outputs: the result, present (like past).",
    axes=projected_attention,
)  # fmt: skip
def _infer_attention(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    if ctx.attr("do_rotary") or ctx.attr("past_present_share_buffer"):
        raise ctx.error("do_rotary and past_present_share_buffer are not supported")
    if x.rank != 3 or ctx.tensor(1).rank != 2:
        raise ctx.error(f"takes x [batch, length, hidden] and a matrix, not {x}, {ctx.tensor(1)}")
    heads = ctx.attr("num_heads")
    sizes = projection_sizes(ctx)
    for size in sizes:
        ctx.require_multiple(size, heads, f"a projection that {heads} heads divide")
    whole = sizes[0] + sizes[1] + sizes[2]
    ctx.require_same_shape(ctx.tensor(1).dims, (x.dims[2], whole), "weights of the projection")
    if ctx.has(2):
        ctx.require_same_shape(ctx.tensor(2).dims, (whole,), "a bias for each projected column")
    batch, length, _ = x.dims
    keys = length + ctx.tensor(4).dims[3] if ctx.has(4) else length
    check_key_mask(ctx, 3, batch, keys)
    present = (2, batch, heads, keys, sizes[1] // heads)
    return [x.with_shape((batch, length, sizes[2])), x.with_shape(present)]


def projection_sizes(ctx: InferContext) -> tuple[Dim, Dim, Dim]:
    """The columns of the weights for queries, for keys and for values."""
    given = ctx.attr("qkv_hidden_sizes")
    if given:
        q, k, v = given
        return q, k, v
    third = ctx.tensor(1).dims[1] // 3
    return third, third, third


def check_key_mask(ctx: InferContext, i: int, batch: Dim, keys: Dim) -> None:
    """Masks are lengths [batch], flags [batch, keys] or flags [batch, queries, keys]."""
    if not ctx.has(i):
        return
    mask = ctx.tensor(i)
    if not mask.dtype.is_integer or not 1 <= mask.rank <= 3:
        raise ctx.error(f"masks of type {mask} are not supported")
    if mask.rank > 1:
        ctx.require(Relation.BROADCAST_TO, mask.dims[0], batch, "a mask for each of the batch")
        ctx.require(Relation.BROADCAST_TO, mask.dims[-1], keys, "a mask as long as the keys")
