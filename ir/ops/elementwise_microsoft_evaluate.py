"""Reference evaluation of com.microsoft's element-wise ops, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..evaluators.activation import erf_array
from ..graph import Node
from ..registry import attribute

Array = np.ndarray


def _biased(inputs: list[Any]) -> Array:
    """Input 0 plus input 1, where that is given."""
    x: Array = inputs[0].astype(np.float64)
    return x if len(inputs) < 2 or inputs[1] is None else x + inputs[1].astype(np.float64)


def _gelu(x: Array) -> Array:
    return 0.5 * x * (1 + erf_array(x / math.sqrt(2)))


def gelu(_node: Node, inputs: list[Any]) -> list[Any]:
    """``x * normal_cdf(x)`` of the sum of the inputs."""
    return [_gelu(_biased(inputs)).astype(inputs[0].dtype)]


def fast_gelu(_node: Node, inputs: list[Any]) -> list[Any]:
    """The tanh form of :func:`gelu`."""
    x = _biased(inputs)
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return [(0.5 * x * (1 + np.tanh(inner))).astype(inputs[0].dtype)]


def quick_gelu(node: Node, inputs: list[Any]) -> list[Any]:
    """``x * sigmoid(alpha * x)``"""
    x = _biased(inputs)
    return [(x / (1 + np.exp(-attribute(node, "alpha") * x))).astype(inputs[0].dtype)]


def bias_add(_node: Node, inputs: list[Any]) -> list[Any]:
    """``x + bias + skip``"""
    return [(_biased(inputs) + inputs[2].astype(np.float64)).astype(inputs[0].dtype)]


def bias_split_gelu(_node: Node, inputs: list[Any]) -> list[Any]:
    """``left * gelu(right)`` of the two halves of ``x + bias``."""
    left, right = np.split(_biased(inputs), 2, axis=-1)
    return [(left * _gelu(right)).astype(inputs[0].dtype)]
