"""Constant inlining: which constants become part of a kernel's code, rather than its inputs."""

from __future__ import annotations

import numpy as np

PARAMETER_LIMIT = 64
"""int64 constants of at most so many elements are inlined: axes, shapes, pads."""

FACTOR_LIMIT = 8
"""Other constants of at most so many elements are inlined, such as scales for each axis. int32 is
the type of quantized layers' biases."""


def is_inlinable(array: np.ndarray) -> bool:
    """Is a constant a scalar or a small array, which is inlined?

    Longer vectors (biases, scales by channel) are inputs of the kernel, so that layers that differ
    only in them share a kernel.
    """
    if array.dtype == object:
        return False
    return bool(array.size <= (PARAMETER_LIMIT if array.dtype == np.int64 else FACTOR_LIMIT))
