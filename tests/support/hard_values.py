"""Numbers where arithmetic is hard: ends of ranges, zeros of both signs, subnormals, NaN."""

from __future__ import annotations

import numpy as np

from graphkiln.ir.types import from_numpy_dtype


def hard_values(kind: str) -> np.ndarray:
    """Numbers of element type ``kind`` (a NumPy name) and their negatives, most of them extreme."""
    t = np.dtype(kind)
    if t.kind == "b":
        return np.array([False, True])
    if t.kind in "iu":
        limits = np.iinfo(t)
        near = [limits.min, limits.min + 1, limits.max // 2, limits.max - 1, limits.max]
        small = range(max(limits.min, -5), 6)
        return np.unique(np.array([*near, *small], t))
    limits = np.finfo(t)
    tiny = [limits.smallest_subnormal, limits.smallest_subnormal * 3, limits.tiny / 2, limits.tiny]
    middle = [1e-3, 0.1, 0.3, 0.5, 1, 1 + limits.eps, 1.5, 2, 2.5, 3, 7, 41, 100.7, 1e4]
    large = [np.sqrt(limits.max), limits.max / 2, limits.max, np.inf]
    given = np.array([0.0, *tiny, *middle, *large], t)
    return np.concatenate([given, -given, np.array([np.nan], t)])


def same_bits(actual: np.ndarray, expected: np.ndarray) -> None:
    """Assert that two arrays agree in every bit, signs of zeros included; any NaN is any other."""
    assert actual.dtype == expected.dtype
    assert actual.shape == expected.shape
    if actual.dtype.kind == "O" or not from_numpy_dtype(actual.dtype).is_float:
        np.testing.assert_array_equal(actual, expected)
        return
    defined = ~np.isnan(expected)
    np.testing.assert_array_equal(np.isnan(actual), ~defined)
    np.testing.assert_array_equal(actual[defined], expected[defined])
    signs = np.signbit(actual[defined]), np.signbit(expected[defined])
    np.testing.assert_array_equal(*signs, err_msg="signs of zeros")
