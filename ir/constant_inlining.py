"""Constant inlining: which constants become part of a kernel's code, rather than its inputs."""

from __future__ import annotations

import numpy as np

PARAMETER_LIMIT = 64
"""Integer constants of at most so many elements are inlined: axes, shapes, pads."""

FACTOR_LIMIT = 8
"""Other constants of at most so many elements are inlined, such as scales for each axis."""


def is_inlinable(array: np.ndarray) -> bool:
    """Is a constant a scalar or a small array, which is inlined?

    Longer vectors (biases, scales by channel) are inputs of the kernel, so that layers that differ
    only in them share a kernel.
    """
    if array.dtype == object:
        return False
    integers = array.dtype in (np.int64, np.int32)
    return bool(array.size <= (PARAMETER_LIMIT if integers else FACTOR_LIMIT))
