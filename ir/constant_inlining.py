"""Constant inlining: which constants become part of a kernel's code, rather than its inputs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .graph import Node
from .registry import has_trait, spec_of
from .traits import Trait

PARAMETER_LIMIT = 64
"""int64 constants of at most so many elements are inlined: axes, shapes, pads."""

FACTOR_LIMIT = 8
"""Other constants of at most so many elements are inlined, such as scales for each axis. int32 is
the type of quantized layers' biases."""


def is_inlinable(array: np.ndarray, uses: Iterable[tuple[Node, int]]) -> bool:
    """Is a constant a scalar or a small array, which is inlined in the kernel of its ``uses``?

    Longer vectors (biases, scales by channel) are inputs of the kernel, so that layers that differ
    only in them share a kernel. So are scalars, if all their readers are
    :attr:`~graphkiln.ir.traits.Trait.PARAMETRIC`; but not zero points of results, which are the
    limits that results are clamped to: with known ones that takes fewer instructions.
    """
    if array.dtype == object:
        return False
    if array.size > (PARAMETER_LIMIT if array.dtype == np.int64 else FACTOR_LIMIT):
        return False
    return not _is_parameter(array) or not all(_takes_any(n, i) for n, i in uses)


def _takes_any(node: Node, i: int) -> bool:
    """Does a kernel of ``node`` compute with input ``i`` as fast if it is known only when run?"""
    return has_trait(node, Trait.PARAMETRIC) and i != spec_of(node).result_zero_point


def _is_parameter(array: np.ndarray) -> bool:
    """A scale or a zero point, but none that makes arithmetic cheaper when it is known."""
    kind, width = array.dtype.kind, array.dtype.itemsize
    real = kind == "f" or kind in "iu" and width == 1
    return array.size == 1 and real and not _simplifies(array.reshape(()))


def _simplifies(value: np.ndarray) -> bool:
    """Zero points of 0 need no addition; of a power of two, a division is a product."""
    if value.dtype.kind != "f":
        return not value.any()
    return bool(np.frexp(np.abs(value))[0] in (0, 0.5))
