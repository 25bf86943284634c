"""Normalisations that ``onnx.reference`` does not compute as the operators are defined."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import Node
from ..registry import attribute


def lrn(node: Node, inputs: list[Any]) -> list[Any]:
    """LRN-13 over x [N, C, ...]: ``x / (bias + alpha / size * s) ** beta``.

    ``s`` is the sum of the squares of ``size`` channels, ``(size - 1) // 2`` before and
    ``size // 2`` behind each, as far as there are any. (``onnx.reference`` stops at as many
    channels as there are images, and takes images of two dims only.)
    """
    x = inputs[0]
    size = int(attribute(node, "size"))
    wide = x.astype(np.float64)
    before, channels = (size - 1) // 2, x.shape[1]
    squares = np.zeros_like(wide)
    for shift in range(-before, size - before):
        low, high = max(0, -shift), min(channels, channels - shift)
        if low < high:
            squares[:, low:high] += wide[:, low + shift : high + shift] ** 2
    scale = attribute(node, "bias") + attribute(node, "alpha") / size * squares
    return [(wide / scale ** attribute(node, "beta")).astype(x.dtype)]


def lp_normalization(node: Node, inputs: list[Any]) -> list[Any]:
    """LpNormalization-22: ``x`` by its norm along ``axis``, 0 where the norm is 0.

    (``onnx.reference`` adds the elements, not their magnitudes, where ``p`` is 1.)
    """
    x = inputs[0]
    wide = np.abs(x.astype(np.float64))
    axis = int(attribute(node, "axis"))
    if int(attribute(node, "p")) == 1:
        norm = wide.sum(axis, keepdims=True)
    else:
        norm = np.sqrt((wide * wide).sum(axis, keepdims=True))
    return [np.where(norm == 0, 0, x / np.where(norm == 0, 1, norm)).astype(x.dtype)]
