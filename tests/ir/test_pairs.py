"""Pairs of weights: which ones packing makes neighbours, and which could saturate."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphkiln.ir.packing import pack_conv_weight, pack_matmul_weight
from graphkiln.ir.pairs import from_pairs, pairs_along, saturating

RNG = np.random.default_rng(3)


def distinct(*shape: int) -> np.ndarray:
    return RNG.permutation(np.arange(1, 1 + np.prod(shape))).reshape(shape).astype(np.int32)


def sums(pairs: np.ndarray) -> list[tuple[int, int]]:
    """The pairs that hold a weight, in an order of their own."""
    return sorted((int(a), int(b)) for a, b in pairs.reshape(-1, 2) if a or b)


@pytest.mark.parametrize(("channels", "group"), [(8, 1), (7, 1), (3, 1), (16, 2), (1, 4)])
def test_packed_filters_have_these_neighbours(channels: int, group: int) -> None:
    w = distinct(8, channels, 3, 2)
    packed = pack_conv_weight(w, group, 8, 8, 4)
    assert sums(packed) == sums(pairs_along(w, 1))


@pytest.mark.parametrize("rows", [1, 5, 6, 12])
def test_packed_matrices_have_these_neighbours(rows: int) -> None:
    w = distinct(rows, 11)
    assert sums(pack_matmul_weight(w, 8, 4)) == sums(pairs_along(w, 0))


@pytest.mark.parametrize("axis", [0, 1, 2, -1])
@pytest.mark.parametrize("count", [1, 4, 5])
def test_pairs_become_weights_again(axis: int, count: int) -> None:
    shape = [3, 2, 4]
    shape[axis] = count
    w = distinct(*shape)
    pairs = pairs_along(w, axis)
    assert pairs.shape[-2:] == (-(-count // 2), 2)
    np.testing.assert_array_equal(from_pairs(pairs, axis, count), w)


@given(st.integers(-128, 127), st.integers(-128, 127))
def test_what_saturates(first: int, second: int) -> None:
    """By the instruction's definition, for all operands: the extremes are at 0 and 255."""
    found = [a * first + b * second for a in (0, 255) for b in (0, 255)]
    exact = all(-(2**15) <= n < 2**15 for n in found)
    assert bool(saturating(np.array([[first, second]], np.int8), 128)[0]) == (not exact)
