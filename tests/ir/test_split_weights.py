"""Weights as the sum of two, in which no pair of neighbours sums to too much."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphkiln.ir.split_weights import (
    SplitWeights,
    join_pairs,
    list_steps,
    share_of_steps,
    split_pairs,
)

LIMIT = 128


def pair_sums(w: np.ndarray) -> Any:
    return np.abs(w.reshape(-1, 2).sum(axis=1, dtype=np.int64)).max()


@st.composite
def weights(draw: st.DrawFn) -> tuple[np.ndarray, int, int]:
    """Packed weights, how many of their dims count tiles, and the elements of a vector."""
    tiles = draw(st.integers(1, 2))
    shape = [draw(st.integers(1, 4)) for _ in range(tiles + draw(st.integers(1, 3)))]
    vector = 4 * draw(st.integers(1, 4))
    shape.append(vector * draw(st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    w = rng.normal(0, draw(st.sampled_from([20, 50, 500])), shape).clip(-128, 127)
    return w.astype(np.int8), tiles, vector


@given(weights())
def test_two_parts_within_the_limit_add_up(given: tuple[np.ndarray, int, int]) -> None:
    w, tiles, vector = given
    split = split_pairs(w, tiles, vector, LIMIT)
    if split is None:
        assert pair_sums(w) <= LIMIT
        return
    assert pair_sums(w) > LIMIT
    assert pair_sums(split.main) <= LIMIT and pair_sums(split.residual) <= LIMIT
    np.testing.assert_array_equal(join_pairs(split, tiles), w)
    assert len(split.starts) == np.prod(w.shape[:tiles]) * (w.shape[-1] // vector) + 1
    assert not split.residual[split.starts[-1] :].any()


def test_extremes_stay_within_sixteen_bits() -> None:
    every = np.array([[a, b] for a in range(-128, 128) for b in range(-128, 128)], np.int8)
    split = split_pairs(every.reshape(1, -1, 4), 1, 4, LIMIT)
    assert split is not None
    for part in (split.main, split.residual):
        products = 255 * part.reshape(-1, 2).sum(axis=1, dtype=np.int64)
        assert products.max() < 2**15 and products.min() >= -(2**15)


def test_a_step_is_listed_for_its_vector() -> None:
    w = np.zeros((2, 3, 8), np.int8)  # two tiles of three steps and two vectors
    w[1, 2, 4:6] = 127, 100
    split = split_pairs(w, 1, 4, LIMIT)
    assert isinstance(split, SplitWeights)
    assert split.starts.tolist() == [0, 0, 0, 0, 1] and split.steps[0] == 2
    assert split.main[1, 2, 4:6].tolist() == [63, 50]
    assert split.residual[0].tolist() == [64, 50, 0, 0]


def test_the_room_is_in_eighths() -> None:
    w = np.zeros((1, 64, 4), np.int8)
    w[0, :9, :2] = 127
    split = split_pairs(w, 1, 4, LIMIT)
    assert split is not None and len(split.steps) == 16


def test_limits_that_halves_exceed() -> None:
    with pytest.raises(ValueError, match="127"):
        split_pairs(np.zeros((1, 1, 4), np.int8), 1, 4, 127)


@given(weights(), st.sampled_from([0.0, 0.3, 1.0]), st.booleans())
def test_listed_steps_are_all_that_is_not_zero(
    given: tuple[np.ndarray, int, int], share: float, limited: bool
) -> None:
    w, tiles, vector = given
    rng = np.random.default_rng(1)
    parts = w.reshape(*w.shape[:-1], -1, vector)
    w = (parts * (rng.random(parts.shape[:-1]) < share)[..., None]).reshape(w.shape).astype(np.int8)
    split = list_steps(w, tiles, vector, LIMIT if limited else None)
    np.testing.assert_array_equal(join_pairs(split, tiles), w)
    assert split.main.size == 0 and split.main.shape[:-1] == w.shape[:-1]
    used = int(w.reshape(-1, vector).any(axis=-1).sum())
    if limited:
        assert not len(split.residual) or pair_sums(split.residual) <= LIMIT
        assert used <= split.starts[-1] <= 2 * used
    else:
        assert split.starts[-1] == used


def test_lists_of_other_types_than_bytes() -> None:
    w = np.zeros((1, 3, 4), np.float32)
    w[0, 1] = 0.5, 0, -1, 2
    split = list_steps(w, 1, 4)
    assert split.steps[0] == 1 and split.residual[0].tolist() == [0.5, 0, -1, 2]
    np.testing.assert_array_equal(join_pairs(split, 1), w)
    assert share_of_steps(w) == pytest.approx(1 / 3) and share_of_steps(w[:0]) == 0
