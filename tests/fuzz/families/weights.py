"""Weights as trained layers have them, seldom what breaks rules, and dims of inputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..net import Net, Value

ODD = ("zeros", "some zeros", "large", "tiny", "denormal", "exact", "negative", "mixed", "nan")


def weights(net: Net, dtype: Any, shape: Sequence[int], terms: int = 1) -> Value:
    """Normal numbers whose sums over ``terms`` products stay near 1; one in five is odd."""
    array = net.rng.normal(0, max(terms, 1) ** -0.5, tuple(shape))
    if net.chance(0.2) and array.size:
        array = _odd(net, array, np.dtype(dtype))
    return net.constant(array.astype(dtype))


def _odd(net: Net, array: np.ndarray, dtype: np.dtype[Any]) -> np.ndarray:
    half = dtype == np.float16
    kind = net.choose(ODD)
    if kind == "zeros":
        return np.zeros_like(array)
    if kind == "large":
        return array * (100 if half else 1e6)
    if kind == "tiny":
        return array * (1e-3 if half else 1e-20)
    if kind == "denormal":
        return array * (1e-7 if half else 1e-40)
    if kind == "exact":
        return np.round(array * 4) / 4
    if kind == "negative":
        return -np.abs(array)
    changed = array.copy()
    if kind == "nan":
        if net.chance(0.3):
            changed.flat[net.between(0, array.size - 1)] = net.choose((np.nan, np.inf, -np.inf))
        return changed
    if array.ndim:
        # By slices, as channels that training has switched off or scaled up.
        factor = 0.0 if kind == "some zeros" else net.choose((1e4, 1e-4, -1.0))
        changed[net.rng.random(array.shape[0]) < 0.4] *= 100 if half and factor > 1 else factor
    return changed


def scale(net: Net, dtype: Any, shape: Sequence[int]) -> Value:
    """Factors of a normalisation: around 1, seldom zero, negative, or far from 1."""
    array = net.rng.normal(1, 0.3, tuple(shape))
    if net.chance(0.15) and array.size:
        array.flat[net.between(0, array.size - 1)] = net.choose((0.0, -1.0, 1e-6, 300.0))
    return net.constant(array.astype(dtype))


def dtype_of_layers(net: Net) -> Any:
    """Mostly float32."""
    return net.choose((np.float32,) * 12 + (np.float16, np.float64))


def sized(net: Net, symbol: str, low: int, high: int, opened: float) -> int | str:
    """A dim that is open with the chance ``opened``, of such a size in the first feed."""
    size = net.between(low, high)
    if not net.chance(opened):
        return size
    net.sizes.setdefault(symbol, size)
    return symbol


__all__ = ["dtype_of_layers", "scale", "sized", "weights"]
