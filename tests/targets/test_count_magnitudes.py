"""Counts of magnitudes by compiled code are those of the reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from oputil import run_op

from graphkiln.ir.magnitudes import BINS, HALF, bins_of, centres, edges


@given(arrays.arrays(np.float32, st.integers(0, 200), elements=st.floats(width=32)))
def test_bins_hold_what_their_edges_say(x: np.ndarray) -> None:
    found, lower = bins_of(x), edges()
    assert found.shape == x.shape
    magnitude = np.abs(x.astype(np.float64))
    side = np.where(np.signbit(x), HALF, 0)
    within = found - side
    assert np.all((within >= 0) & (within < HALF))
    finite = np.isfinite(x)
    assert np.all(lower[within[finite]] <= magnitude[finite])
    assert np.all(magnitude[finite] < lower[within[finite] + 1])
    assert np.all(within[~finite] == HALF - 1)


def test_bins_are_narrow() -> None:
    """Between the ends they differ from their centre by less than one part in 128."""
    lower, middle = edges()[1:-2], centres()[1:-1]
    assert np.all(np.abs(middle / lower - 1) <= 1 / 128)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (3, 5, 11), (4097,)])
@pytest.mark.parametrize("symbolic", [False, "distinct"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
def test_compiled_counts(shape: tuple[int, ...], symbolic: bool | str, dtype: str) -> None:
    compare(np.random.default_rng(3).standard_normal(shape).astype(dtype), symbolic)


def test_special_numbers() -> None:
    numbers = [0.0, -0.0, np.inf, -np.inf, 1e-45, -1e-45, 2.0**-24, 2.0**24, 3e38, -3e38]
    compare(np.array(numbers, np.float32))


@settings(max_examples=10, deadline=None)
@given(arrays.arrays(np.float32, 50, elements=st.floats(width=32)))
def test_any_floats(x: np.ndarray) -> None:
    compare(x)


def compare(x: np.ndarray, symbolic: bool | str = False) -> None:
    (found,) = run_op("CountMagnitudes", [x], domain="kiln", symbolic=symbolic)
    assert found.dtype == np.int32
    wanted = np.bincount(bins_of(x.astype(np.float32)).reshape(-1), minlength=BINS)
    np.testing.assert_array_equal(found, wanted)
