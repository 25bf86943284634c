"""Reference evaluation of com.microsoft's attention ops, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..graph import Node
from ..registry import attribute

Array = np.ndarray


def _split_heads(x: Array, heads: int) -> Array:
    """[batch, length, heads * width] as [batch, heads, length, width]."""
    return x if x.ndim == 4 else x.reshape(*x.shape[:2], heads, -1).swapaxes(1, 2)


def _merge_heads(x: Array) -> Array:
    return x.swapaxes(1, 2).reshape(x.shape[0], x.shape[2], -1)


def _key_bias(node: Node, mask: Array | None, keys: int) -> Array | float:
    """The mask as an addend that broadcasts to [batch, heads, queries, keys]."""
    if mask is None:
        return 0.0
    if mask.ndim == 1:
        mask = np.arange(keys) < mask[:, None]
    shaped = mask[:, None, None] if mask.ndim == 2 else mask[:, None]
    return np.where(shaped > 0, 0.0, attribute(node, "mask_filter_value"))


def _attend(node: Node, q: Array, k: Array, v: Array, bias: Array | float) -> Array:
    scale = attribute(node, "scale") or 1 / math.sqrt(q.shape[-1])
    scores = scale * q @ np.swapaxes(k, -1, -2) + bias
    if attribute(node, "unidirectional"):
        queries, keys = scores.shape[-2:]
        later = np.arange(keys) > np.arange(queries)[:, None] + (keys - queries)
        scores = np.where(later, -np.inf, scores)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    result: Array = weights / weights.sum(axis=-1, keepdims=True) @ v
    return result


def multi_head_attention(node: Node, inputs: list[Any]) -> list[Any]:
    """``MultiHeadAttention``."""
    q, k, v, bias, mask, added, past_k, past_v = [*inputs, *[None] * 8][:8]
    heads, dtype = attribute(node, "num_heads"), q.dtype
    q, k, v = (x.astype(np.float64) for x in (q, k, v))
    if bias is not None:
        parts = np.split(bias, [q.shape[-1], bias.size - _width(v)])
        q, k, v = (x if x.ndim == 4 else x + p for x, p in zip((q, k, v), parts, strict=True))
    q, k, v = (_split_heads(x, heads) for x in (q, k, v))
    if past_k is not None:
        k, v = np.concatenate((past_k, k), 2), np.concatenate((past_v, v), 2)
    total = _key_bias(node, mask, k.shape[2]) + (0.0 if added is None else added)
    result = _merge_heads(_attend(node, q, k, v, total))
    return [x.astype(dtype) for x in (result, k, v)]


def _width(v: Array) -> int:
    return v.shape[-1] if v.ndim == 3 else v.shape[1] * v.shape[3]


def attention(node: Node, inputs: list[Any]) -> list[Any]:
    """``Attention`` with its projection."""
    x, weights, bias, mask, past, added = [*inputs, *[None] * 6][:6]
    heads = attribute(node, "num_heads")
    projected = x.astype(np.float64) @ weights.astype(np.float64)
    if bias is not None:
        projected = projected + bias
    sizes = attribute(node, "qkv_hidden_sizes") or [weights.shape[1] // 3] * 3
    parts = np.split(projected, [sizes[0], sizes[0] + sizes[1]], axis=-1)
    q, k, v = (_split_heads(p, heads) for p in parts)
    if past is not None:
        k, v = np.concatenate((past[0], k), 2), np.concatenate((past[1], v), 2)
    total = _key_bias(node, mask, k.shape[2]) + (0.0 if added is None else added)
    result = _merge_heads(_attend(node, q, k, v, total)).astype(x.dtype)
    wanted = len(node.outputs) > 1
    return [result, np.stack((k, v)).astype(x.dtype)] if wanted else [result]


def rotary_embedding(node: Node, inputs: list[Any]) -> list[Any]:
    """``RotaryEmbedding``."""
    x, positions, cosines, sines = inputs
    rotated = attribute(node, "rotary_embedding_dim") or 2 * cosines.shape[1]
    heads = attribute(node, "num_heads") or x.shape[-1] // rotated
    rows = _split_heads(x.astype(np.float64), heads)
    if positions.ndim == 1:
        whole = (rows.shape[0], rows.shape[2])
        positions = np.broadcast_to(positions[0] + np.arange(whole[1]), whole)
    cos, sin = cosines[positions][:, None], sines[positions][:, None]
    out = rows.copy()
    pairs = (slice(0, rotated, 2), slice(1, rotated, 2))
    if not attribute(node, "interleaved"):
        pairs = (slice(0, rotated // 2), slice(rotated // 2, rotated))
    a, b = (rows[..., p] for p in pairs)
    out[..., pairs[0]], out[..., pairs[1]] = cos * a - sin * b, sin * a + cos * b
    return [(out if x.ndim == 4 else _merge_heads(out)).astype(x.dtype)]
