"""Ranges of channels, and the factors that make large channels smaller."""

from __future__ import annotations

import numpy as np

from ..ranges import Range

STRENGTHS = (0.2, 0.35, 0.5, 0.65, 0.8)
"""Strengths that are tried, besides leaving a tensor as it is."""


class ChannelRanges:
    """The extremes of ``count`` channels over some samples; 0 is always among the numbers."""

    def __init__(self, count: int) -> None:
        self.low, self.high = np.zeros(count), np.zeros(count)

    def see(self, channels: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
        """Count the extremes in one sample; ``channels`` says of which channel each is."""
        np.minimum.at(self.low, channels, low)
        np.maximum.at(self.high, channels, high)

    def divided(self, s: np.ndarray) -> Range:
        """The range of the tensor when its channels are divided by ``s``."""
        return Range(float(np.min(self.low / s)), float(np.max(self.high / s)))

    def factors(self, weights: np.ndarray) -> list[np.ndarray]:
        """What the channels may be divided by, for ``weights`` of these largest magnitudes: ones,
        then ``max |X|^a / max |W|^(1-a)`` with each strength ``a``.
        """
        x, w = _not_small(np.maximum(-self.low, self.high)), _not_small(weights)
        return [np.ones(len(x)), *(x**a / w ** (1 - a) for a in STRENGTHS)]


def _not_small(peaks: np.ndarray) -> np.ndarray:
    """Peaks of channels, small ones as large as the middle one of all that are not 0.

    Small channels are no trouble, and one that samples show little of may be much larger in other
    data: scaled up, it would be cut off.
    """
    used = peaks[peaks > 0]
    return np.maximum(peaks, np.median(used) if used.size else 1.0)


__all__ = ["STRENGTHS", "ChannelRanges"]
