"""Sums of products of bytes that need few of the 32 bits of their accumulators.

Winograd's F(4x4, 3x3) in integers gives 64 times the sums of a convolution (see
``targets/cpu/winograd_forms.py``), so that 26 bits are left for these. Operands are from 0 to 255,
so the largest sum of a filter is 255 times that of its weights of one sign.
"""

from __future__ import annotations

from math import prod

import numpy as np

BITS = 26
"""Bits of a short sum, with its sign."""


def sums_are_short(weights: np.ndarray) -> bool:
    """Is no sum by filters ``[M, ..]``, int8 or numbers from -127 to 127, longer than
    :data:`BITS`?
    """
    wide = weights.reshape(len(weights), prod(weights.shape[1:])).astype(np.float64)
    above, below = np.maximum(wide, 0).sum(axis=1), np.minimum(wide, 0).sum(axis=1)
    most = 255 * max(above.max(initial=0), -below.min(initial=0))
    return bool(most < 2 ** (BITS - 1))


__all__ = ["BITS", "sums_are_short"]
