"""Pairs of int8 weights whose products a dot product sums in 16 bits.

``vpmaddubsw`` multiplies bytes without sign by bytes with sign, and adds neighbouring products:
those of channels 2i and 2i + 1 of a sum, at one position of the window, as packing has them (see
:mod:`.packing`). Such a sum saturates at 32,767, which 255 * 127 + 255 * 100 exceeds. For any two
operands it does not where

    |q0 + q1| <= limit        128 for operands of 8 bits, as 255 * 128 < 2^15

since products by weights of different signs sum to less than one of them alone.
"""

from __future__ import annotations

import numpy as np


def pairs_along(weights: np.ndarray, axis: int) -> np.ndarray:
    """The pairs of channels ``axis``: ``[.., C, ..]`` becomes ``[.., .., ceil(C/2), 2]``.

    The last of an odd number of channels stands beside 0, which packing puts there.
    """
    last = np.moveaxis(weights, axis, -1)
    if last.shape[-1] % 2:
        last = np.concatenate([last, np.zeros_like(last[..., :1])], axis=-1)
    return last.reshape(*last.shape[:-1], -1, 2)


def from_pairs(pairs: np.ndarray, axis: int, channels: int) -> np.ndarray:
    """The inverse of :func:`pairs_along` for so many ``channels``."""
    last = pairs.reshape(*pairs.shape[:-2], -1)[..., :channels]
    return np.ascontiguousarray(np.moveaxis(last, -1, axis))


def saturating(pairs: np.ndarray, limit: int) -> np.ndarray:
    """Which pairs of ``[.., 2]``, int8 or numbers that hold their sums, are beyond ``limit``."""
    wide = np.int16 if pairs.dtype == np.int8 else pairs.dtype
    found: np.ndarray = np.abs(pairs.sum(axis=-1, dtype=wide)) > limit
    return found


__all__ = ["from_pairs", "pairs_along", "saturating"]
