"""Activations that ``onnx.reference`` computes slowly, with overflow, or not as defined."""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np

from ..graph import Node
from ..registry import attribute
from .arithmetic import compute_dtype

# erf is 1 to double precision beyond this.
_END = 6.0
_STEPS_PER_UNIT = 64
_TERMS = 7


def erf_array(x: np.ndarray) -> np.ndarray:
    """erf of float64 values, within a few units in the last place of float64.

    Taylor's series around the nearest of 385 points, where ``math.erf`` is tabulated; there
    ``erf^(n+1)(p) = 2/sqrt(pi) * (-1)^n * H_n(p) * exp(-p*p)`` with Hermite's polynomials H_n.
    """
    size = np.minimum(np.abs(x), _END)
    index = np.rint(np.nan_to_num(size) * _STEPS_PER_UNIT).astype(np.intp)
    step = size - index / _STEPS_PER_UNIT
    table = _taylor_table()
    total = table[_TERMS][index]
    for n in reversed(range(_TERMS)):
        total = total * step + table[n][index]
    signed: np.ndarray = np.copysign(total, x)
    return signed


@cache
def _taylor_table() -> np.ndarray:
    """Coefficient n (a row) at each tabulated point (a column)."""
    points = np.arange(int(_END * _STEPS_PER_UNIT) + 1) / _STEPS_PER_UNIT
    rows = [np.array([math.erf(p) for p in points])]
    slope = 2 / math.sqrt(math.pi) * np.exp(-points * points)
    hermite, previous = np.ones_like(points), np.zeros_like(points)
    for n in range(_TERMS):
        rows.append((-1) ** n * hermite * slope / math.factorial(n + 1))
        hermite, previous = 2 * points * hermite - 2 * n * previous, hermite
    return np.array(rows)


def erf(_node: Node, inputs: list[Any]) -> list[Any]:
    """``Erf``, elementwise."""
    x = inputs[0]
    return [erf_array(x.astype(np.float64)).astype(x.dtype)]


def gelu(node: Node, inputs: list[Any]) -> list[Any]:
    """``Gelu``: ``x * Phi(x)``, or its tanh form where ``approximate`` asks for it."""
    x = inputs[0]
    wide = x.astype(np.float64)
    if attribute(node, "approximate") == "tanh":
        inner = math.sqrt(2 / math.pi) * (wide + 0.044715 * wide**3)
        return [(0.5 * wide * (1 + np.tanh(inner))).astype(x.dtype)]
    return [(0.5 * wide * (1 + erf_array(wide / math.sqrt(2)))).astype(x.dtype)]


def sigmoid(_node: Node, inputs: list[Any]) -> list[Any]:
    """``Sigmoid``, elementwise and without overflow."""
    x = inputs[0]
    work = x.astype(compute_dtype(x.dtype), copy=False)
    small = np.exp(-np.abs(work))
    return [(np.where(work >= 0, 1, small) / (1 + small)).astype(x.dtype, copy=False)]


def prelu(_node: Node, inputs: list[Any]) -> list[Any]:
    """PRelu-16: ``slope * x`` below 0, ``x`` elsewhere.

    (``onnx.reference`` multiplies 0 too, which a slope that is no finite number makes NaN.)
    """
    x, slope = inputs
    return [np.where(x < 0, x * slope, x).astype(x.dtype, copy=False)]
