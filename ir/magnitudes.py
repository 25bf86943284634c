"""Bins of equal relative width for float32 numbers: what observers of a calibration count.

The bin of a number is its sign, its exponent and the first bits of its fraction, so bins need no
range that must be known beforehand: one run over the data is enough, and counts of several runs add
up. Within a bin numbers differ by at most one part in 64.

Bin ``i`` below :data:`HALF` holds numbers that are +0 or more, bin ``HALF + i`` those that are -0
or less, of the same magnitudes. The first bin of each half holds all magnitudes below ``2**-24``,
and the last one all from ``2**24`` on, infinity and NaN.
"""

from __future__ import annotations

import numpy as np

FRACTION_BITS = 6
"""Bits of the fraction that tell bins of one power of two apart."""
LOWEST, HIGHEST = -24, 24
"""The exponents of the least magnitude with a bin of its own, and of the least without one."""

HALF = ((HIGHEST - LOWEST) << FRACTION_BITS) + 2
"""Bins of one sign: one below the least magnitude, and one above the greatest."""
BINS = 2 * HALF

SHIFT = 23 - FRACTION_BITS
"""The bits of a float32 that are left out."""
FIRST = ((LOWEST + 127) << FRACTION_BITS) - 1
"""What is subtracted from the other bits of a magnitude: its bin, once it is cut to ``0 .. HALF -
1``.
"""


def bins_of(x: np.ndarray) -> np.ndarray:
    """The bin of each float32 number, int64 of the same shape."""
    bits = np.ascontiguousarray(x, np.float32).view(np.int32).astype(np.int64)
    magnitude = ((bits & 0x7FFFFFFF) >> SHIFT) - FIRST
    return np.clip(magnitude, 0, HALF - 1) + np.where(bits < 0, HALF, 0)


def edges() -> np.ndarray:
    """The least magnitude of each bin of a half, and infinity: float64 ``[HALF + 1]``."""
    steps = np.arange((HIGHEST - LOWEST) << FRACTION_BITS)
    exponent, fraction = np.divmod(steps, 1 << FRACTION_BITS)
    inner = np.ldexp(1 + fraction / (1 << FRACTION_BITS), exponent + LOWEST)
    return np.concatenate([[0.0], inner, [2.0**HIGHEST, np.inf]])


def centres() -> np.ndarray:
    """A magnitude for each bin of a half: float64 ``[HALF]``; 0 for the first one."""
    found = edges()
    middle = (found[:-2] + found[1:-1]) / 2
    middle[0] = 0.0
    return np.concatenate([middle, found[-2:-1]])


__all__ = ["BINS", "FIRST", "HALF", "SHIFT", "bins_of", "centres", "edges"]
