"""com.microsoft's GroupQueryAttention, the decoder attention of exported language models.

It becomes ops of ONNX: queries and new keys are rotated by their positions, new keys and values are
written to the cache, and the scores of keys that a query must not see are masked.

    B batch   S new tokens   P past tokens (or the cache's size)   T tokens of the cache afterwards
    H heads of queries   K heads of keys and values   D width of a head
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..ir.dims import Dim
from ..ir.graph import Value
from ..ir.onnx_types import element_code
from ..ir.types import dtype
from .emit import Emit
from .errors import ImportFault
from .node import OnnxNode

_INT64 = element_code(dtype("int64"))
_PLAIN = {
    "causal": 1, "kv_cache_bit_width": 0, "qk_output": 0, "sliding_window_cache": 0,
    "k_quant_type": "NONE", "v_quant_type": "NONE",
}  # fmt: skip
"""Attributes for which only one value is supported."""
_FIRST_UNSUPPORTED_INPUT = 12


def group_query_attention(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """GroupQueryAttention-1 as onnxruntime's CPU kernels compute it.

    Inputs: query [B, S, H * D] (or [B, S, (H + 2 K) * D] without key and value), key and value
    [B, S, K * D], past key and value [B, K, P, D], seqlens_k [B] (each row's tokens less one),
    total_sequence_length (the longest row's tokens), cosines and sines of the positions, position
    ids [B, S], attention bias [B or 1, H or 1, S, the longest row], head sink [H]. Outputs:
    [B, S, H * D] and the cache [B, K, T, D] of keys and of values, where T is P or the longest row,
    if that is more.
    A call whose new tokens are as many as the longest row's is a prompt: it starts at position 0.
    """
    _refuse_extras(node)
    heads, groups = _count(node, "num_heads"), _count(node, "kv_num_heads")
    if heads % groups:
        raise ImportFault(f"{groups} heads of keys do not divide {heads} heads of queries")
    q, k, v = _projections(node, emit, heads, groups)
    step = _step(node, q, emit)
    if node.attrs.get("do_rotary", 0):
        q, k = _rotated(node, q, heads, step, emit), _rotated(node, k, groups, step, emit)
    keys = _cache(node.input(3), _split(k, groups, emit), step, emit)
    values = _cache(node.input(4), _split(v, groups, emit), step, emit)
    queries = emit("Transpose", _split(q, heads, emit), perm=(0, 2, 1, 3))
    mask = _mask(node, q, step, emit)
    result = _attended(node, queries, keys, values, mask, emit)
    joined = emit("Transpose", result, perm=(0, 2, 1, 3))
    return [emit("Reshape", joined, emit.ints([0, 0, -1])), keys, values]


def _refuse_extras(node: OnnxNode) -> None:
    for name, usual in _PLAIN.items():
        if (given := node.attrs.get(name, usual)) != usual:
            raise ImportFault(f"{name}={given} is not supported, only {usual}")
    for i in range(_FIRST_UNSUPPORTED_INPUT, len(node.inputs)):
        if node.input(i) is not None:
            raise ImportFault(f"input {i} is not supported")
    if node.asks_for(3):
        raise ImportFault("output 3 is not supported")
    for a, b, what in ((1, 2, "key and value"), (3, 4, "past key and past value")):
        if (node.input(a) is None) != (node.input(b) is None):
            raise ImportFault(f"{what} must be given together")


def _count(node: OnnxNode, name: str) -> int:
    number = node.attrs.get(name)
    if not isinstance(number, int) or number < 1:
        raise ImportFault(f"{name} must be a positive number, not {number}")
    return number


# ---- operands ------------------------------------------------------------------------------------


def _projections(node: OnnxNode, emit: Emit, heads: int, groups: int) -> tuple[Value, Value, Value]:
    """Queries, keys and values, each with all heads in the last axis."""
    q, k, v = node.required(0), node.input(1), node.input(2)
    if emit.rank(q) != 3:
        raise ImportFault(f"queries must be [batch, length, heads * width], not {q.type}")
    if k is not None and v is not None:
        return q, k, v
    hidden: Dim = emit.dims(q)[2]
    if not isinstance(hidden, int) or hidden % (heads + 2 * groups):
        raise ImportFault(f"{heads} + 2 * {groups} heads do not divide the last axis of {q.type}")
    width = hidden // (heads + 2 * groups)
    sizes = emit.ints([heads * width, groups * width, groups * width])
    parts = emit.many("Split", [q, sizes], {"axis": 2}, 3)
    return parts[0], parts[1], parts[2]


def _split(x: Value, heads: int, emit: Emit) -> Value:
    """[B, S, heads * D] as [B, S, heads, D]."""
    return emit("Reshape", x, emit.ints([0, 0, heads, -1]))


@dataclass(frozen=True)
class _Step:
    """The positions of the new tokens: ``before`` [B, 1] tokens of each row are already in the
    cache.

    ``places`` [B, S] are the new tokens' positions, ``cached`` [T] those of the cache, ``filled``
    those of the longest row, ``past`` and ``new`` [1] are P and S; all of them are int64.
    """

    before: Value
    places: Value
    cached: Value
    filled: Value
    past: Value
    new: Value


def _step(node: OnnxNode, q: Value, emit: Emit) -> _Step:
    zero, one = (emit.scalar_int(n) for n in (0, 1))
    past_key = node.input(3)
    past = emit.ints([0]) if past_key is None else emit("Shape", past_key, start=2, end=3)
    new = emit("Shape", q, start=1, end=2)
    total = emit("Reshape", emit("Cast", node.required(6), to=_INT64), emit.ints([1]))
    ends = emit("Add", emit("Cast", node.required(5), to=_INT64), one)
    ends = emit("Reshape", ends, emit.ints([-1, 1]))
    prompt = emit("Equal", total, new)
    before = emit("Where", prompt, zero, emit("Sub", ends, new))
    most: Dim = 0 if past_key is None else emit.dims(past_key)[2]
    fits = emit("kiln.Within", before, low=0, high=most)
    before = emit(
        "kiln.Require", before, fits,
        message=f"node '{emit.name}' (com.microsoft.GroupQueryAttention) needs seqlens_k that "
        "leave as many past tokens as its cache may hold",
    )  # fmt: skip
    places = emit("Add", before, emit("Range", zero, _scalar(new, emit), one))
    filled = emit("Range", zero, _scalar(total, emit), one)
    cached = emit("Range", zero, _scalar(emit("Max", past, total), emit), one)
    return _Step(before, places, cached, filled, past, new)


def _scalar(x: Value, emit: Emit) -> Value:
    return emit("Squeeze", x, emit.ints([0]))


def _rotated(node: OnnxNode, x: Value, heads: int, step: _Step, emit: Emit) -> Value:
    """Rotary embedding of the first elements of each head, twice as many as there are cosines."""
    cosines, sines = node.required(7), node.required(8)
    pairs, hidden = emit.dims(cosines)[1], emit.dims(x)[2]
    whole = isinstance(pairs, int) and hidden == 2 * pairs * heads
    if not isinstance(pairs, int):
        raise ImportFault(f"the cosines must have a known number of columns, not {cosines.type}")
    ids = node.input(9)
    return emit(
        "com.microsoft.RotaryEmbedding", x, step.places if ids is None else ids, cosines, sines,
        interleaved=node.attrs.get("rotary_interleaved", 0), num_heads=heads,
        rotary_embedding_dim=0 if whole else 2 * pairs,
    )  # fmt: skip


# ---- the cache -----------------------------------------------------------------------------------


def _cache(past: Value | None, new: Value, step: _Step, emit: Emit) -> Value:
    """The cache [B, K, T, D]: each row's past tokens, then ``new`` [B, S, K, D], then zeros."""
    if past is not None:
        new = emit("Concat", emit("Transpose", past, perm=(0, 2, 1, 3)), new, axis=1)
    fresh = emit("Sub", step.cached, step.before)
    taken = emit("Less", fresh, step.new)
    zero = emit.scalar_int(0)
    source = emit("Where", emit("Less", fresh, zero), step.cached, emit("Add", fresh, step.past))
    source = emit("Where", taken, source, zero)
    rows = emit("GatherND", new, emit("Unsqueeze", source, emit.ints([2])), batch_dims=1)
    there = emit("Unsqueeze", taken, emit.ints([2, 3]))
    return emit("Transpose", emit("Where", there, rows, emit.scalar(0, new)), perm=(0, 2, 1, 3))


# ---- scores --------------------------------------------------------------------------------------


def _mask(node: OnnxNode, q: Value, step: _Step, emit: Emit) -> Value:
    """The mask that is added to the scores: the bias, and -inf for keys that a query must not see.

    It is [B, H or 1, S, the longest row]; the cache's entries after that are masked, too.
    """
    at = emit("Unsqueeze", step.places, emit.ints([1, 3]))
    seen = emit("LessOrEqual", step.filled, at)
    window = node.attrs.get("local_window_size", -1)
    if isinstance(window, int) and window >= 0:
        first = emit("Sub", at, emit.scalar_int(window))
        seen = emit("And", seen, emit("Greater", step.filled, first))
    bias = node.input(10)
    return emit("Where", seen, emit.scalar(0, q) if bias is None else bias,
                emit.scalar(-np.inf, q))  # fmt: skip


def _attended(node: OnnxNode, q: Value, k: Value, v: Value, mask: Value, emit: Emit) -> Value:
    """softmax(q k^T + mask) v of q [B, H, S, D] and k, v [B, K, T, D].

    The mask may be shorter than the keys, of which the rest is masked (Attention-24).
    """
    scale, cap = node.attrs.get("scale", 0.0), node.attrs.get("softcap", 0.0)
    attrs = {"scale": scale} if scale else {}
    sink = node.input(11)
    if sink is None and not node.attrs.get("smooth_softmax", 0):
        return emit("Attention", q, k, v, mask, softcap=cap, **attrs)
    # A sink is one more key, before the others, with a given score and a value of zeros.
    rows, width = emit("Shape", k, start=0, end=2), emit("Shape", k, start=3, end=4)
    nothing = emit("Expand", emit.scalar(0, k), emit("Concat", rows, emit.ints([1]), width, axis=0))
    keys, values = (emit("Concat", nothing, x, axis=2) for x in (k, v))
    score = emit.scalar(0, q) if sink is None else emit("Reshape", sink, emit.ints([1, -1, 1, 1]))
    lead = emit("Shape", q, start=0, end=3)
    column = emit("Expand", score, emit("Concat", lead, emit.ints([1]), axis=0))
    whole = emit("Concat", lead, emit("Shape", mask, start=3, end=4), axis=0)
    seen = emit("Concat", column, emit("Expand", mask, whole), axis=3)
    return emit("Attention", q, keys, values, seen, softcap=cap, **attrs)
