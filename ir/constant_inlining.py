"""Which constants become part of a kernel's code, and which stay data it is given."""

from __future__ import annotations

import numpy as np

PARAMETER_LIMIT = 64
"""Integer constants of at most this many elements are parameters: axes, shapes, pads."""

FACTOR_LIMIT = 8
"""The same for other constants: scales along the axes of a tensor, say."""


def is_inlinable(array: np.ndarray) -> bool:
    """Scalars, and small arrays, which steer what a kernel does.

    Longer vectors (biases, per-channel scales) stay data, so that layers that differ in them alone
    share a kernel.
    """
    if array.dtype == object:
        return False
    integers = array.dtype in (np.int64, np.int32)
    return bool(array.size <= (PARAMETER_LIMIT if integers else FACTOR_LIMIT))
