"""Dtypes to compute in, and the integer arithmetic of quantized ops."""

from __future__ import annotations

import numpy as np

from ..types import from_numpy_dtype


def compute_dtype(dtype: np.dtype) -> np.dtype:
    """Where sums are accumulated: float32 for narrower floats, else the type itself."""
    t = from_numpy_dtype(dtype)
    return np.dtype(np.float32) if t.is_float and t.bits < 32 else dtype


def centred(x: np.ndarray, zero: np.ndarray | None, axis: int | None) -> np.ndarray:
    """``x - zero`` as float64, which is exact; a one-dimensional ``zero`` runs along ``axis``."""
    out = x.astype(np.float64)
    if zero is None:
        return out
    if zero.ndim == 1 and zero.size > 1 and axis is not None:
        shape = [1] * x.ndim
        shape[axis] = zero.size
        zero = zero.reshape(shape)
    elif zero.size == 1:
        zero = zero.reshape(())
    out -= zero.astype(np.float64)
    return out


def requantize(
    sums: np.ndarray, scale: np.ndarray, zero: np.ndarray | None, default: np.dtype
) -> np.ndarray:
    """``saturate(round(sums * scale) + zero)`` in the type of ``zero`` (``default`` without it)."""
    target = default if zero is None else zero.dtype
    offset = 0.0 if zero is None else zero.astype(np.float64)
    return saturated(np.rint(sums * scale) + offset, target)


def saturated(whole: np.ndarray, target: np.dtype) -> np.ndarray:
    """Whole floats as integers of ``target``, saturated; NaN gives the least."""
    t = from_numpy_dtype(target)
    low = -(1 << (t.bits - 1)) if t.kind == "i" else 0
    inside: np.ndarray = np.clip(whole, low, low + (1 << t.bits) - 1)
    return np.where(np.isnan(inside), low, inside).astype(target)


def dynamic_codes(x: np.ndarray) -> tuple[np.ndarray, np.float32]:
    """``x`` quantized to uint8 over its own range: integers minus the zero point, and the scale."""
    low, high = np.float32(min(0, x.min())), np.float32(max(0, x.max()))
    scale = np.float32((high - low if high > low else np.float32(1)) / np.float32(255))
    zero = np.rint(np.clip(-low / scale, 0, 255))
    codes = np.clip(np.rint(x / scale) + zero, 0, 255) - zero
    return codes.astype(np.float64), scale
