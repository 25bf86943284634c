"""Attention and rotary embeddings."""

from __future__ import annotations

from typing import Any

import numpy as np

from .base import MS, Array, Case, Draw, case


def _packed(d: Draw, rank: int, n: int, heads: int, length: int, width: int) -> Array:
    shape = (n, heads, length, width) if rank == 4 else (n, length, heads * width)
    return d.floats(*shape)


@case("Attention")
def attention(d: Draw, key: str) -> Case:
    n, kv, group, s, t, depth, width = (d.dim(1, 3) for _ in range(7))
    rank, past = d.pick(3, 4), d.dim(0, 2)
    heads = kv * group
    q = _packed(d, rank, n, heads, s, depth)
    k, v = (_packed(d, rank, n, kv, t, w) for w in (depth, width))
    attrs: dict[str, Any] = {"is_causal": d.pick(0, 0, 1)}
    if rank == 3:
        attrs |= {"q_num_heads": heads, "kv_num_heads": kv}
    mask = d.floats(*d.squeezed((n, heads, s))[-3:], past + t)
    inputs: list[Array | None] = [q, k, v, mask if mask.ndim > 1 and d.flag() else None]
    outputs = d.pick(1, 3, 4)
    if outputs == 1 and d.flag():
        inputs += [None, None, d.ints(0, t + 1, n)]
    if past and outputs > 1:
        inputs += [d.floats(n, kv, past, depth), d.floats(n, kv, past, width)]
    elif inputs[3] is not None and past:
        inputs[3] = mask[..., past:]
    return Case(key, inputs, attrs, outputs)


@case("kiln.Attention")
def dialect_attention(d: Draw, key: str) -> Case:
    n, h, s, t, depth, width = (d.dim(1, 3) for _ in range(6))
    inputs = [d.floats(n, h, s, depth), d.floats(n, h, t, depth), d.floats(n, h, t, width)]
    if d.flag():
        inputs.append(d.floats(*d.squeezed((n, h, s, t))))
    return Case(key, inputs)


@case(MS + "MultiHeadAttention")
def multi_head(d: Draw, key: str) -> Case:
    n, h, s, t, depth, width = (d.dim(1, 3) for _ in range(6))
    q = d.floats(n, s, h * depth)
    rank = d.pick(3, 4)
    k, v = (_packed(d, rank, n, h, t, w) for w in (depth, width))
    bias = d.floats(h * (2 * depth + width)) if rank == 3 else None
    past = d.dim(0, 2)
    mask = d.pick(
        None, d.ints(1, t + past + 1, n, dtype="int32"),
        d.ints(0, 2, n, t + past, dtype="int32"), d.ints(0, 2, n, s, t + past, dtype="int32"),
    )  # fmt: skip
    added = d.some(d.floats(*d.pick((1, 1), (n, h)), s, t + past))
    cached = [d.floats(n, h, past, w) for w in (depth, width)] if past else []
    attrs = {"num_heads": h, "unidirectional": d.pick(0, 0, 1)}
    return Case(key, [q, k, v, bias, mask, added, *cached], attrs, d.pick(1, 3))


@case(MS + "Attention")
def projected(d: Draw, key: str) -> Case:
    n, h, s, depth, inner = (d.dim(1, 3) for _ in range(5))
    columns = 3 * h * depth
    mask = d.pick(None, d.ints(1, s + 1, n, dtype="int32"), d.ints(0, 2, n, s, dtype="int32"))
    inputs = [d.floats(n, s, inner), d.floats(inner, columns), d.floats(columns), mask]
    attrs = {"num_heads": h, "unidirectional": d.pick(0, 0, 1)}
    return Case(key, inputs, attrs)


@case("LinearAttention")
def linear(d: Draw, key: str) -> Case:
    n, kv, group, s, depth, width = (d.dim(1, 3) for _ in range(6))
    rule = d.pick("linear", "gated", "delta", "gated_delta")
    widths = (kv * group * depth, kv * depth, kv * width)
    inputs: list[Array | None] = [d.floats(n, s, w) for w in widths]
    inputs.append(d.floats(n, kv, depth, width))
    inputs.append(d.floats(n, s, kv * d.pick(1, depth)) if "gated" in rule else None)
    inputs.append(d.floats(n, s, d.pick(1, kv)) if "delta" in rule else None)
    attrs = {"q_num_heads": kv * group, "kv_num_heads": kv, "update_rule": rule}
    return Case(key, inputs, attrs, 2)


@case("RotaryEmbedding", MS + "RotaryEmbedding")
def rotary(d: Draw, key: str) -> Case:
    n, h, s, pairs = (d.dim(1, 3) for _ in range(4))
    rank = d.pick(3, 4)
    x = _packed(d, rank, n, h, s, 2 * pairs)
    attrs = {"num_heads": h, "interleaved": d.dim(0, 1)}
    cached = [d.floats(s + 2, pairs) for _ in range(2)]
    places = d.ints(0, s + 2, n, s)
    if key.startswith(MS):
        return Case(key, [x, d.pick(places, np.array([1])), *cached], attrs)
    if d.flag():
        return Case(key, [x, *cached, places], attrs)
    return Case(key, [x, *(d.floats(n, s, pairs) for _ in range(2))], attrs)
