"""Reductions whose steps leave the range of the type, though their result does not.

``onnx.reference`` takes the logarithm of the softmax, which is 0 or denormal far below the maximum,
and squares float16 in its own type, where 300 squared is infinite.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import Node
from ..registry import attribute
from .arithmetic import compute_dtype


def log_softmax(node: Node, inputs: list[Any]) -> list[Any]:
    """LogSoftmax-13: ``(x - max x) - log sum exp(x - max x)`` along ``axis``."""
    x = inputs[0]
    if not x.size:
        return [x]
    axis = int(attribute(node, "axis"))
    wide = x.astype(np.float64)
    below = wide - wide.max(axis, keepdims=True)
    return [(below - np.log(np.exp(below).sum(axis, keepdims=True))).astype(x.dtype)]


def reduce_l2(node: Node, inputs: list[Any]) -> list[Any]:
    """ReduceL2-18: the root of the sum of squares along ``axes``."""
    x, axes = [*inputs, None][:2]
    if axes is not None and axes.size:
        along: tuple[int, ...] | None = tuple(int(a) for a in axes)
    else:
        along = () if attribute(node, "noop_with_empty_axes") else None
    wide = x.astype(compute_dtype(x.dtype), copy=False)
    total = np.sum(wide * wide, axis=along, keepdims=bool(attribute(node, "keepdims")))
    return [np.sqrt(total).astype(x.dtype)]
