"""Counts of magnitudes: bins, extremes, quantiles, and what merging keeps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphkiln.ir.magnitudes import BINS, HALF, bins_of, centres, edges
from graphkiln.passes.quantize.histogram import Histogram

floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


def seen(*runs: np.ndarray) -> Histogram:
    found = Histogram()
    for x in runs:
        found.add(np.bincount(bins_of(x), minlength=BINS), float(x.min()), float(x.max()))
    return found


@given(st.lists(floats, min_size=1))
def test_a_number_lies_between_the_edges_of_its_bin(numbers: list[float]) -> None:
    x = np.array(numbers, np.float32)
    found, limits = bins_of(x), edges()
    half = found % HALF
    assert np.all((np.abs(x) >= limits[half]) & (np.abs(x) < limits[half + 1]))
    assert np.array_equal(found >= HALF, np.signbit(x))


def test_bins_are_narrow_and_reach_far() -> None:
    limits = edges()
    inner = limits[1:-1]
    assert len(limits) == HALF + 1 and np.all(np.diff(limits) > 0)
    assert np.max(inner[1:] / inner[:-1]) <= 1 + 1 / 64
    assert inner[0] == 2.0**-24 and inner[-1] == 2.0**24
    assert np.all((centres()[1:-1] > inner[:-1]) & (centres()[1:-1] < inner[1:]))


@pytest.mark.parametrize(
    "number, place",
    [(0.0, 0), (-0.0, HALF), (2.0**-24, 1), (2.0**24, HALF - 1), (np.inf, HALF - 1),
     (-np.inf, BINS - 1), (np.nan, HALF - 1), (1e-30, 0)],
)  # fmt: skip
def test_what_lies_at_the_ends(number: float, place: int) -> None:
    assert bins_of(np.array([number], np.float32)).tolist() == [place]


@pytest.mark.parametrize("share", [0.001, 0.1, 0.25, 0.5, 0.9, 0.999])
def test_quantiles_are_right_within_a_bin(share: float) -> None:
    x = np.random.default_rng(3).standard_normal(50_000).astype(np.float32) * 5 - 1
    want = float(np.quantile(x, share))
    assert abs(seen(x).quantile(share) - want) <= abs(want) / 64


def test_quantiles_end_at_the_extremes() -> None:
    found = seen(np.array([-3.0, 1.0, 7.5], np.float32))
    assert (found.quantile(0.0), found.quantile(1.0)) == (-3.0, 7.5)


@given(st.lists(floats, min_size=1), st.lists(floats, min_size=1))
def test_merged_histograms_are_those_of_all_runs(a: list[float], b: list[float]) -> None:
    one, two = np.array(a, np.float32), np.array(b, np.float32)
    apart, together = seen(one).merged(seen(two)), seen(one, two)
    assert np.array_equal(apart.counts, together.counts)
    assert (apart.low, apart.high, apart.runs) == (together.low, together.high, together.runs)
    np.testing.assert_allclose(
        [apart.mean_low, apart.mean_high], [together.mean_low, together.mean_high], rtol=1e-12
    )


def test_means_are_over_runs() -> None:
    found = seen(*(np.array(x, np.float32) for x in ([-1, 2], [-3, 4], [-5, 9])))
    assert (found.mean_low, found.mean_high, found.runs) == (-3.0, 5.0, 3)
    assert (found.low, found.high) == (-5.0, 9.0)


def test_runs_without_elements_count_for_nothing() -> None:
    found = Histogram()
    found.add(np.zeros(BINS, np.int64), np.inf, -np.inf)
    assert (found.runs, found.total) == (0, 0)
    assert found.merged(Histogram()).runs == 0


def test_runs_that_did_not_count_have_extremes() -> None:
    found = Histogram()
    found.add(np.ones(BINS, np.int64), -1.0, 2.0)
    found.add(None, -3.0, 1.0)
    assert (found.low, found.high, found.runs, found.total) == (-3.0, 2.0, 2, BINS)
    assert (found.mean_low, found.mean_high) == (-2.0, 1.5)


@pytest.mark.parametrize("low, high", [(0.0, np.inf), (-np.inf, 1.0)])
def test_infinity_is_refused(low: float, high: float) -> None:
    with pytest.raises(ValueError, match="inf"):
        Histogram().add(np.zeros(BINS, np.int64), low, high)
