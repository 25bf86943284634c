"""Sums of operands that broadcast, accumulated in float32 where their type is narrower."""

from __future__ import annotations

from functools import reduce
from typing import Any

import numpy as np

from ..graph import Node
from .arithmetic import compute_dtype


def sums(_node: Node, inputs: list[Any]) -> list[Any]:
    """``Sum``: inputs of any number, shapes broadcast (ONNX Sum 13)."""
    return [_total(inputs).astype(inputs[0].dtype, copy=False)]


def mean(_node: Node, inputs: list[Any]) -> list[Any]:
    """``Mean``: their sum by their number (ONNX Mean 13)."""
    total = _total(inputs)
    return [(total / np.asarray(len(inputs), total.dtype)).astype(inputs[0].dtype, copy=False)]


def _total(inputs: list[Any]) -> Any:
    dtype = compute_dtype(inputs[0].dtype)
    return reduce(np.add, [x.astype(dtype, copy=False) for x in inputs])
