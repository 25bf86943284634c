"""Weights that are mostly zero, without their zeros: see :mod:`graphkiln.contract`."""

from __future__ import annotations

import numpy as np

_LEAST_BYTES = 4096
"""Smaller weights stay as they are."""
_MOST = 0.6
"""So does a weight whose compact form is larger than this share of it: it can be mapped."""


def compact(array: np.ndarray) -> tuple[np.ndarray, int] | None:
    """A weight in storage dtype as bytes without its zeros, and how many elements are left.

    None where that is not much smaller. Zero is what has no bit set, so that -0.0 stays.
    """
    size = array.dtype.itemsize
    if array.nbytes < _LEAST_BYTES or size not in (1, 2, 4, 8):
        return None
    flat = np.ascontiguousarray(array).reshape(-1).view(f"u{size}")
    count = int(np.count_nonzero(flat))
    bits = -(-len(flat) // 64) * 8
    if bits + count * size > _MOST * array.nbytes:
        return None
    kept = flat != 0
    packed = np.zeros(bits, np.uint8)
    found = np.packbits(kept, bitorder="little")
    packed[: len(found)] = found
    return np.concatenate([packed, flat[kept].view(np.uint8)]), count


__all__ = ["compact"]
