"""What was seen of one tensor: its extremes and how often each magnitude came."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ...ir.magnitudes import BINS, HALF, centres, edges


def _no_counts() -> np.ndarray:
    return np.zeros(BINS, np.int64)


@dataclass
class Histogram:
    """Counts of numbers in the bins of :mod:`graphkiln.ir.magnitudes`, over several runs.

    ``counts`` is int64 ``[BINS]``, perhaps of some of the runs only; ``low`` and ``high`` are the
    extremes of all runs, ``mean_low`` and ``mean_high`` the means of those of each run, of which
    there were ``runs``.
    """

    counts: np.ndarray = field(default_factory=_no_counts)
    low: float = float("inf")
    high: float = float("-inf")
    mean_low: float = 0.0
    mean_high: float = 0.0
    runs: int = 0

    def add(self, counts: np.ndarray, low: float, high: float) -> None:
        """Add what one run saw. Raises :class:`ValueError` for extremes that are no numbers.

        A run without elements counts for nothing.
        """
        if low > high:
            return
        if not np.isfinite(low) or not np.isfinite(high):
            raise ValueError(f"it holds {low if not np.isfinite(low) else high}")
        self.counts += counts
        self.low, self.high = min(self.low, low), max(self.high, high)
        self.runs += 1
        self.mean_low += (low - self.mean_low) / self.runs
        self.mean_high += (high - self.mean_high) / self.runs

    def merged(self, other: Histogram) -> Histogram:
        """What both have seen together."""
        runs = self.runs + other.runs
        share = other.runs / runs if runs else 0.0
        return Histogram(
            self.counts + other.counts, min(self.low, other.low), max(self.high, other.high),
            self.mean_low + (other.mean_low - self.mean_low) * share,
            self.mean_high + (other.mean_high - self.mean_high) * share, runs,
        )  # fmt: skip

    def to_json(self) -> dict[str, Any]:
        """All of it, as JSON holds it exactly; infinite extremes are None."""
        filled = np.flatnonzero(self.counts)
        return {
            "bins": filled.tolist(), "counts": self.counts[filled].tolist(), "runs": self.runs,
            "ends": [self.low, self.high] if self.runs else None,
            "means": [self.mean_low, self.mean_high],
        }  # fmt: skip

    @classmethod
    def from_json(cls, held: Mapping[str, Any]) -> Histogram:
        """What :meth:`to_json` gave."""
        counts = _no_counts()
        counts[held["bins"]] = held["counts"]
        low, high = held["ends"] or (float("inf"), float("-inf"))
        mean_low, mean_high = held["means"]
        return cls(counts, low, high, mean_low, mean_high, held["runs"])

    @property
    def total(self) -> int:
        """Numbers that were counted."""
        return int(self.counts.sum())

    def values(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Bins that are not empty in ascending order: middles, widths (float64), counts (int64).

        The first and the last bin are cut at the extremes.
        """
        lower = edges()
        lower[-1] = max(abs(self.low), abs(self.high), lower[-2])
        width, middle = np.diff(lower), centres()
        middles = np.concatenate([-middle[::-1], middle])
        widths = np.concatenate([width[::-1], width])
        counts = np.concatenate([self.counts[HALF:][::-1], self.counts[:HALF]])
        kept = counts > 0
        return np.clip(middles[kept], self.low, self.high), widths[kept], counts[kept]

    def error(self, low: float, high: float, levels: int) -> float:
        """The mean square error of the numbers, quantized to so many ``levels`` from ``low`` to
        ``high``; the range holds 0, which is one of the levels.
        """
        middles, widths, counts = self.values()
        step = (high - low) / (levels - 1)
        if not step:
            return float(np.dot(middles**2, counts) / self.total)
        zero = np.round(-low / step)
        quantized = np.clip(np.round(middles / step) + zero, 0, levels - 1) - zero
        off = (quantized * step - middles) ** 2
        inside = (middles >= low) & (middles <= high)
        # In a bin as wide as a step, numbers are off by anything up to half a step.
        off = np.where(inside & (widths >= step), step * step / 12, off)
        return float(np.dot(off, counts) / self.total)

    def outside(self, low: float, high: float) -> float:
        """The share (0 to 1) of the numbers that lie outside of a range, off by a bin at most."""
        middles, _, counts = self.values()
        return float(counts[(middles < low) | (middles > high)].sum() / self.total)

    @property
    def power(self) -> float:
        """The mean of the squares of all numbers."""
        middles, _, counts = self.values()
        return float(np.dot(middles**2, counts) / self.total)

    def spread(self, bins: int) -> list[int]:
        """Counts in so many bins of equal width from the least number to the greatest."""
        middles, _, counts = self.values()
        width = max(self.high - self.low, np.finfo(np.float64).tiny)
        place = np.minimum(((middles - self.low) / width * bins).astype(np.int64), bins - 1)
        return [int(n) for n in np.bincount(place, counts, bins)]

    def quantile(self, share: float) -> float:
        """The value that a ``share`` (0 to 1) of all numbers do not exceed.

        It is exact at both ends, and elsewhere off by a bin's width at most.
        """
        if share <= 0 or not self.total:
            return self.low
        if share >= 1:
            return self.high
        middles, widths, counts = self.values()
        reached = np.cumsum(counts)
        wanted = share * reached[-1]
        i = int(np.searchsorted(reached, wanted))
        inside = (wanted - (reached[i] - counts[i])) / counts[i] - 0.5
        return float(np.clip(middles[i] + widths[i] * inside, self.low, self.high))


__all__ = ["Histogram"]
