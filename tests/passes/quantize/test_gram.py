"""Gram matrices of rows that come in parts."""

from __future__ import annotations

import numpy as np
import pytest

from graphkiln.passes.quantize.gram import Gram


@pytest.mark.parametrize(
    "sizes", [[0], [1], [3, 0, 2], [511, 1], [511, 2], [512], [512, 512, 1], [1300], [100] * 11]
)
def test_the_sum_is_that_of_all_rows(sizes: list[int]) -> None:
    rng = np.random.default_rng(sum(sizes))
    parts = [rng.standard_normal((n, 7)).astype(np.float32) for n in sizes]
    gram = Gram(7)
    for part in parts:
        gram.add(part)
    everything = np.concatenate(parts).astype(np.float64)
    np.testing.assert_allclose(gram.total(), everything.T @ everything, atol=1e-3)


def test_rows_may_change_once_they_were_added() -> None:
    """Runs may give their results in the same memory again."""
    gram, rows = Gram(3), np.eye(3, dtype=np.float32)
    gram.add(rows)
    rows[:] = 5
    np.testing.assert_array_equal(gram.total(), np.eye(3))


def test_a_total_is_no_end() -> None:
    gram, rows = Gram(2), np.ones((4, 2), np.float32)
    gram.add(rows)
    np.testing.assert_array_equal(gram.total(), np.full((2, 2), 4.0))
    gram.add(rows)
    np.testing.assert_array_equal(gram.total(), np.full((2, 2), 8.0))


def test_many_rows_add_up_exactly_enough() -> None:
    """Sums of float32 numbers are short, whatever the number of rows."""
    gram = Gram(1)
    rows = np.full((1 << 16, 1), 0.1, np.float32)
    for _ in range(4):
        gram.add(rows)
    wanted = 4 * len(rows) * float(np.float32(0.1)) ** 2
    np.testing.assert_allclose(gram.total(), [[wanted]], rtol=1e-5)
