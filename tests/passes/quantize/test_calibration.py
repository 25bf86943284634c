"""Ranges by every method, against what they should be."""

from __future__ import annotations

import numpy as np
import pytest

from graphkiln.ir.magnitudes import BINS, bins_of
from graphkiln.passes.quantize.calibration import Calibration, Method
from graphkiln.passes.quantize.histogram import Histogram

RNG = np.random.default_rng(5)
NORMAL = RNG.standard_normal(200_000).astype(np.float32)


def seen(*runs: np.ndarray) -> Histogram:
    found = Histogram()
    for x in runs:
        found.add(np.bincount(bins_of(x), minlength=BINS), float(x.min()), float(x.max()))
    return found


def error(x: np.ndarray, low: float, high: float, levels: int) -> float:
    """The mean square error of quantized numbers."""
    step = (high - low) / (levels - 1)
    zero = np.round(-low / step)
    restored = (np.clip(np.round(x / step) + zero, 0, levels - 1) - zero) * step
    return float(np.mean((restored - x) ** 2))


def test_minmax_is_the_whole_range_and_average_that_of_a_run() -> None:
    found = seen(*(np.array(x, np.float32) for x in ([-1, 2], [-3, 4])))
    assert Calibration(Method.MINMAX).range_of(found) == (-3.0, 4.0)
    assert Calibration(Method.AVERAGE).range_of(found) == (-2.0, 3.0)


@pytest.mark.parametrize("method", Method)
def test_zero_is_always_in_the_range(method: Method) -> None:
    for x in (RNG.uniform(3, 5, 1000), RNG.uniform(-5, -3, 1000)):
        low, high = Calibration(method).range_of(seen(x.astype(np.float32)))
        assert low <= 0 <= high and low < high


@pytest.mark.parametrize("method", Method)
def test_symmetric_ranges_are(method: Method) -> None:
    low, high = Calibration(method).range_of(seen(NORMAL - 1), symmetric=True)
    assert low == -high < 0


@pytest.mark.parametrize("share", [0.9, 0.99, 0.999])
def test_percentiles_leave_their_share_outside(share: float) -> None:
    low, high = Calibration(Method.PERCENTILE, share).range_of(seen(NORMAL))
    inside = np.mean((low <= NORMAL) & (high >= NORMAL))
    assert abs(inside - share) < 2e-3
    positive = np.abs(NORMAL)
    low, high = Calibration(Method.PERCENTILE, share).range_of(seen(positive))
    assert low == 0 and abs(np.mean(positive <= high) - share) < 2e-3


@pytest.mark.parametrize("levels", [16, 256])
@pytest.mark.parametrize("outlier", [0.0, 60.0])
def test_mse_is_close_to_the_best_range(levels: int, outlier: float) -> None:
    x = np.append(NORMAL, np.float32(outlier or NORMAL[0]))
    low, high = Calibration(Method.MSE, levels=levels).range_of(seen(x), symmetric=True)
    best = min(error(x, -r, r, levels) for r in np.linspace(0.5, x.max(), 400))
    assert error(x, low, high, levels) <= best * 1.02


def test_entropy_saturates_rare_numbers_and_keeps_even_ones() -> None:
    x = np.append(NORMAL, np.full(5, 80, np.float32))
    assert 3 < Calibration(Method.ENTROPY).range_of(seen(x), symmetric=True)[1] < 30
    even = RNG.uniform(-4, 4, 200_000).astype(np.float32)
    low, high = Calibration(Method.ENTROPY).range_of(seen(even))
    assert low < -3.8 and high > 3.8


def test_entropy_does_not_count_zeros() -> None:
    """Behind a Relu, or in an image of strokes on black, most numbers are 0."""
    x = np.maximum(NORMAL[:20_000], 0)
    sparse = np.append(x, np.zeros(200_000, np.float32))
    wanted = Calibration(Method.ENTROPY).range_of(seen(x))
    found = Calibration(Method.ENTROPY).range_of(seen(sparse))
    assert found == pytest.approx(wanted) and found[1] > 2.5


def test_entropy_cuts_few_numbers() -> None:
    """Most numbers have one value, as the background of an image has behind a bias."""
    x = np.append(np.full(80_000, 0.3, np.float32), np.abs(NORMAL[:20_000]) * 2)
    _, high = Calibration(Method.ENTROPY).range_of(seen(x))
    assert np.mean(x > high) <= 0.011


@pytest.mark.parametrize("method", Method)
def test_a_tensor_of_one_number(method: Method) -> None:
    assert Calibration(method).range_of(seen(np.zeros(7, np.float32))) == (0.0, 0.0)
    low, high = Calibration(method).range_of(seen(np.full(7, 2, np.float32)))
    assert low == 0 and high == 2


def test_nothing_seen_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing was seen"):
        Calibration().range_of(Histogram())


@pytest.mark.parametrize("given", [{"share": 0.0}, {"share": 1.5}, {"levels": 1}])
def test_options_that_make_no_sense(given: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Calibration(**given)  # type: ignore[arg-type]
