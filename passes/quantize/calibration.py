"""Methods that pick the range of a tensor from what was seen of it.

minmax       from the least number to the greatest
average      the mean of the runs' least numbers to the mean of their greatest
percentile   what a share of the numbers, 99.99 % by default, lies in
mse          the range with the least mean square error of the quantized numbers
entropy      the range whose quantized numbers tell most of the distribution: the least
             Kullback-Leibler divergence (S. Migacz, 8-bit inference with TensorRT, 2017)

A wider range saturates fewer numbers, and rounds all of them more coarsely.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from .histogram import Histogram

_CANDIDATES = 32
"""Ranges that are compared at once, from the whole one down to :data:`_LEAST` of it."""
_LEAST = 0.02
_LINEAR = 2048
"""Bins of equal width in which distributions are compared."""
_MOST_CUT = 0.01
"""The most of the numbers other than 0 that may lie outside of a range by entropy. Where many have
one value, as the background of an image behind a bias, a range that ends there would seem best."""
_SMOOTH = 1e-4
"""The share of one of them that takes the place of none, whose logarithm would be infinite."""


class Method(str, Enum):
    """How a range is picked."""

    MINMAX = "minmax"
    AVERAGE = "average"
    PERCENTILE = "percentile"
    MSE = "mse"
    ENTROPY = "entropy"

    @property
    def needs_counts(self) -> bool:
        """Does the range depend on more than extremes?"""
        return self not in (Method.MINMAX, Method.AVERAGE)


@dataclass(frozen=True)
class Calibration:
    """A method, with the ``share`` (0 to 1) of numbers inside of the range for percentiles.

    ``levels`` are the numbers that a quantized tensor can have: 255 for 8 bits with sign.
    """

    method: Method = Method.MINMAX
    share: float = 0.9999
    levels: int = 256

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"share must be above 0 and at most 1, not {self.share}")
        if self.levels < 2:
            raise ValueError(f"levels must be 2 or more, not {self.levels}")

    def range_of(self, seen: Histogram, symmetric: bool = False) -> tuple[float, float]:
        """The range of a tensor; with ``symmetric``, from ``-high`` to ``high``.

        It holds 0, which must be a quantized number: borders and empty places are 0. Raises
        :class:`ValueError` where nothing was seen.
        """
        if not seen.runs:
            raise ValueError("nothing was seen of it")
        low, high = _METHODS[self.method](self, seen, symmetric)
        low, high = min(low, 0.0), max(high, 0.0)
        if symmetric:
            high = max(-low, high)
            low = -high
        return low, high


def _minmax(_c: Calibration, seen: Histogram, _symmetric: bool) -> tuple[float, float]:
    return seen.low, seen.high


def _average(_c: Calibration, seen: Histogram, _symmetric: bool) -> tuple[float, float]:
    return seen.mean_low, seen.mean_high


def _percentile(c: Calibration, seen: Histogram, _symmetric: bool) -> tuple[float, float]:
    outside = (1 - c.share) / 2 if seen.low < 0 < seen.high else 1 - c.share
    low = seen.quantile(outside) if seen.low < 0 else seen.low
    high = seen.quantile(1 - outside) if seen.high > 0 else seen.high
    return low, high


def _best(
    seen: Histogram, symmetric: bool, loss: Callable[[float, float], float]
) -> tuple[float, float]:
    """The range with the least loss: a part of the whole one, then each end by itself."""
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    if symmetric:
        high = max(-low, high)
        low = -high
    if high == low:
        return low, high
    both = _least(lambda part: loss(low * part, high * part))
    low, high = low * both, high * both
    if not symmetric and low < 0 < high:
        low *= _least(lambda part: loss(low * part, high))
        high *= _least(lambda part: loss(low, high * part))
    return low, high


def _least(loss: Callable[[float], float]) -> float:
    """The part from :data:`_LEAST` to 1 with the least loss: the best of some, and of those
    around it.
    """
    parts = np.geomspace(1.0, _LEAST, _CANDIDATES)
    best = int(np.argmin([loss(float(p)) for p in parts]))
    near = np.linspace(parts[max(0, best - 1)], parts[min(_CANDIDATES - 1, best + 1)], _CANDIDATES)
    near = np.append(near, parts[best])
    return float(near[int(np.argmin([loss(float(p)) for p in near]))])


def _mse(c: Calibration, seen: Histogram, symmetric: bool) -> tuple[float, float]:
    return _best(seen, symmetric, lambda low, high: seen.error(low, high, c.levels))


def _entropy(c: Calibration, seen: Histogram, symmetric: bool) -> tuple[float, float]:
    low, high = min(seen.low, 0.0), max(seen.high, 0.0)
    width = max(high - low, 1e-300) / _LINEAR
    linear = _linear(seen, low, width)
    places = low + width * (np.arange(_LINEAR) + 0.5)

    def loss(first: float, last: float) -> float:
        inside = (places >= first) & (places <= last)
        true = linear * inside
        if true.sum() < (1 - _MOST_CUT) * linear.sum():
            return float("inf")
        # What saturates is found at the ends.
        ends = np.flatnonzero(inside)[[0, -1]] if inside.any() else [0, 0]
        true[ends[0]] += linear[places < first].sum()
        true[ends[1]] += linear[places > last].sum()
        step = (last - first) / (c.levels - 1)
        level = np.clip(np.round((places - first) / step), 0, c.levels - 1).astype(np.int64)
        filled = inside & (linear > 0)
        mass = np.bincount(level, linear * inside, c.levels)
        bins = np.bincount(level, filled, c.levels)
        guess = np.where(filled, mass[level] / np.maximum(bins[level], 1), 0.0)
        guess = np.maximum(guess / max(guess.sum(), 1e-300), _SMOOTH / _LINEAR)
        kept = true > 0
        return float(np.sum(true[kept] * np.log(true[kept] / guess[kept])))

    return _best(seen, symmetric, loss)


def _linear(seen: Histogram, low: float, width: float) -> np.ndarray:
    """The shares of all numbers but 0 in bins of equal ``width`` from ``low`` on, float64
    ``[_LINEAR]``; numbers are spread evenly over the bin that they were counted in.

    Zeros are exact in any range. Behind a Relu they are most of the numbers, and if they counted,
    the narrowest range would seem best.
    """
    middles, widths, counts = seen.values()
    counts = np.where(middles == 0, 0, counts)
    if not counts.any():
        return np.zeros(_LINEAR)
    starts = np.clip((middles - widths / 2 - low) / width, 0, _LINEAR)
    stops = np.clip((middles + widths / 2 - low) / width, 0, _LINEAR)
    reached = np.concatenate([[0.0], np.cumsum(counts)]) / counts.sum()
    at = np.column_stack([starts, np.maximum(stops, starts + 1e-9)]).reshape(-1)
    share = np.column_stack([reached[:-1], reached[1:]]).reshape(-1)
    # Neighbours touch, and the bins around zero overlap by less than a linear bin.
    edges = np.interp(np.arange(_LINEAR + 1), np.maximum.accumulate(at), share, 0.0, 1.0)
    return np.diff(edges)


_METHODS: Mapping[Method, Callable[[Calibration, Histogram, bool], tuple[float, float]]] = {
    Method.MINMAX: _minmax,
    Method.AVERAGE: _average,
    Method.PERCENTILE: _percentile,
    Method.MSE: _mse,
    Method.ENTROPY: _entropy,
}

__all__ = ["Calibration", "Method"]
