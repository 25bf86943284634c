"""Pooling, one kernel position at a time: MaxPool, AveragePool and LpPool."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import Node
from ..registry import attribute
from ..types import from_numpy_dtype
from .arithmetic import compute_dtype
from .windows import Frame, pool_frame


def max_pool(node: Node, inputs: list[Any]) -> list[Any]:
    """``MaxPool`` over x [N,C,*spatial], with indices where the node has a second output."""
    x = inputs[0]
    window = pool_frame(node, x.shape[2:])
    if len(node.outputs) > 1:
        return _with_indices(node, x, window)
    padded = window.pad(x, _lowest(x.dtype))
    best: np.ndarray | None = None
    for offset in window.offsets():
        seen = window.view(padded, offset)
        best = seen.copy() if best is None else np.maximum(best, seen, out=best)
    return [best]


def _lowest(dtype: np.dtype) -> Any:
    t = from_numpy_dtype(dtype)
    if t.is_float:
        return -np.inf
    return -(1 << (t.bits - 1)) if t.kind == "i" else 0


def _with_indices(node: Node, x: np.ndarray, window: Frame) -> list[Any]:
    padded = window.pad(x, _lowest(x.dtype))
    # Padding is marked by -1: it is never the maximum, even where all values are -inf.
    places = window.pad(_positions(node, x.shape[2:]), -1)
    best = np.zeros((*x.shape[:2], *window.output), x.dtype)
    index = np.full(best.shape, -1, np.int64)
    for offset in window.offsets():
        seen, place = window.view(padded, offset), window.view(places, offset)
        first_nan = (seen != seen) & (best == best)
        better = (place >= 0) & ((index < 0) | (seen > best) | first_nan)
        best = np.where(better, seen, best)
        index = np.where(better, place, index)
    planes = np.arange(x.shape[0] * x.shape[1]).reshape(*x.shape[:2], *(1,) * (x.ndim - 2))
    return [best, index + planes * int(np.prod(x.shape[2:]))]


def _positions(node: Node, spatial: tuple[int, ...]) -> np.ndarray:
    """The flat index of each spatial position, by rows or (storage_order 1) by columns."""
    count = int(np.prod(spatial))
    if attribute(node, "storage_order"):
        return np.arange(count).reshape(spatial[::-1]).transpose()
    return np.arange(count).reshape(spatial)


def average_pool(node: Node, inputs: list[Any]) -> list[Any]:
    """``AveragePool`` over x [N,C,*spatial]."""
    x = inputs[0]
    window = pool_frame(node, x.shape[2:])
    total = _sum(x.astype(compute_dtype(x.dtype), copy=False), window)
    return [(total / _counts(node, x.shape[2:], window)).astype(x.dtype)]


def lp_pool(node: Node, inputs: list[Any]) -> list[Any]:
    """``LpPool`` over x [N,C,*spatial]."""
    x = inputs[0]
    p = int(attribute(node, "p") or 2)
    window = pool_frame(node, x.shape[2:])
    work = x.astype(compute_dtype(x.dtype), copy=False)
    return [(_sum(np.abs(work) ** p, window) ** (1.0 / p)).astype(x.dtype)]


def global_max_pool(_node: Node, inputs: list[Any]) -> list[Any]:
    """``GlobalMaxPool`` over x [N,C,*spatial]."""
    x = inputs[0]
    return [x.max(axis=tuple(range(2, x.ndim)), keepdims=True)]


def global_average_pool(_node: Node, inputs: list[Any]) -> list[Any]:
    """``GlobalAveragePool`` over x [N,C,*spatial]."""
    x = inputs[0]
    mean = x.mean(axis=tuple(range(2, x.ndim)), keepdims=True, dtype=compute_dtype(x.dtype))
    return [mean.astype(x.dtype)]


def global_lp_pool(node: Node, inputs: list[Any]) -> list[Any]:
    """``GlobalLpPool`` over x [N,C,*spatial]."""
    x = inputs[0]
    p = int(attribute(node, "p") or 2)
    powers = np.abs(x.astype(compute_dtype(x.dtype), copy=False)) ** p
    total = powers.sum(axis=tuple(range(2, x.ndim)), keepdims=True)
    return [(total ** (1.0 / p)).astype(x.dtype)]


def _sum(x: np.ndarray, window: Frame) -> np.ndarray:
    padded = window.pad(x, 0)
    total = np.zeros((*x.shape[:2], *window.output), x.dtype)
    for offset in window.offsets():
        total += window.view(padded, offset)
    return total


def _counts(node: Node, spatial: tuple[int, ...], window: Frame) -> np.ndarray:
    """The number of elements that each window averages, without those that ``ceil_mode`` added."""
    border = 1.0 if attribute(node, "count_include_pad") else 0.0
    widths = list(zip(window.before, window.after, strict=True))
    counted = np.pad(np.ones(spatial, np.float32), widths, constant_values=border)
    counted = np.pad(counted, [(0, e) for e in window.extra])
    counts = np.zeros(window.output, np.float32)
    for offset in window.offsets():
        counts += window.view(counted, offset)
    return counts
