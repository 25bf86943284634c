"""Scales and zero points, and what weights become by them."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, log10

import numpy as np

from ..ranges import Range
from .pairs import Pairing

_LARGEST_BIAS = 2**30
"""Half of what int32 holds: the sum of the products is added."""
_LEAST_SCALE = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class Parameters:
    """``x ~ scale * (q - zero)`` with integers of ``kind``; ``axis`` is that of several scales.

    ``scale`` is float32 and ``zero`` of ``kind``, scalars or ``[channels]``.
    """

    scale: np.ndarray
    zero: np.ndarray
    axis: int | None = None


def activation_parameters(found: Range, kind: str) -> Parameters:
    """The parameters of a tensor whose range holds 0: uint8 or uint16 use the whole range, int8 and
    int16 the largest magnitude, with zero point 0.
    """
    limits = np.iinfo(kind)
    if limits.min < 0:
        largest = max(-found.low, found.high)
        return Parameters(_scale(largest / limits.max), np.zeros((), kind))
    scale = _scale((found.high - found.low) / limits.max)
    zero = np.clip(np.round(-found.low / float(scale)), 0, limits.max)
    return Parameters(scale, zero.astype(kind))


def _scale(wanted: float) -> np.ndarray:
    """A scale as float32; a tensor that is 0 throughout has one, too."""
    return np.asarray(max(wanted, _LEAST_SCALE) if wanted else 1.0, np.float32)


def weight_parameters(
    weights: np.ndarray, axis: int | None, largest: int = 127, pairing: Pairing | None = None
) -> Parameters:
    """Symmetric int8 parameters from ``-largest`` to ``largest``, for each index of ``axis`` or for
    all weights, by which no pair of ``pairing`` is beyond its limit but for rounding.
    """
    others = None if axis is None else tuple(i for i in range(weights.ndim) if i != axis)
    peak = np.max(np.abs(weights), axis=others)
    if pairing is not None:
        pairs = np.max(pairing.sums(weights), axis=others, initial=0)
        peak = np.maximum(peak, pairs * (largest / pairing.limit))
    scale = np.where(peak > 0, np.maximum(peak / largest, _LEAST_SCALE), 1.0).astype(np.float32)
    return Parameters(scale, np.zeros(scale.shape, np.int8), axis)


def restored(integers: np.ndarray, p: Parameters) -> np.ndarray:
    """What quantized numbers stand for, float64."""
    zero = _along(p.zero.astype(np.int64), p.axis, integers.ndim)
    return (integers.astype(np.int64) - zero) * _along(p.scale, p.axis, integers.ndim)


def _along(values: np.ndarray, axis: int | None, rank: int) -> np.ndarray:
    """Values for each index of an axis, or one for all, as they broadcast; floats as float64."""
    shape = [-1 if i == axis else 1 for i in range(rank)]
    wide = values.astype(np.float64) if values.dtype.kind == "f" else values
    return wide if axis is None else wide.reshape(shape)


def decibels(power: float, error: float) -> float | None:
    """The ratio of the mean squares of signal and quantization noise (SQNR), in decibels; None
    where nothing is lost, or there is no signal.
    """
    ratio = power / error if error else inf
    return 10 * log10(ratio) if 0 < ratio < inf else None


def bias_parameters(operand: Parameters, weights: Parameters) -> Parameters:
    """Those of a bias: the scales of the products that it is added to, ``s_x * s_W``."""
    scale = np.asarray(operand.scale * weights.scale, np.float32)
    return Parameters(scale, np.zeros(scale.shape, np.int32), 0 if scale.ndim else None)


def quantized_bias(bias: np.ndarray, p: Parameters) -> np.ndarray | None:
    """The nearest int32 numbers, halves to even; None where they do not fit, or a scale is 0."""
    if not (p.scale > 0).all() or not np.isfinite(bias).all():
        return None
    steps = np.round(bias.astype(np.float64) / p.scale)
    return steps.astype(np.int32) if np.all(np.abs(steps) <= _LARGEST_BIAS) else None


def quantized(
    weights: np.ndarray, p: Parameters, largest: int = 127, pairing: Pairing | None = None
) -> np.ndarray:
    """The nearest int8 weights, halves to even; those within the limit of ``pairing``."""
    steps = weights.astype(np.float64) / _along(p.scale, p.axis, weights.ndim)
    if pairing is not None:
        return pairing.rounded(steps, largest).astype(np.int8)
    return np.clip(np.round(steps), -largest, largest).astype(np.int8)


__all__ = [
    "Parameters", "activation_parameters", "bias_parameters", "decibels", "quantized",
    "quantized_bias", "restored", "weight_parameters",
]  # fmt: skip
