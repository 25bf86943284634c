"""Which filters give sums of bytes that are short."""

from __future__ import annotations

import numpy as np
import pytest

from graphkiln.ir.short_sums import BITS, sums_are_short


@pytest.mark.parametrize("weight", [127, -128])
def test_the_longest_sum_decides(weight: int) -> None:
    """For all weights alike, by closed form."""
    most = (2 ** (BITS - 1) - 1) // (255 * abs(weight))
    for count, short in ((most, True), (most + 1, False)):
        filters = np.zeros((3, count, 1, 1), np.int8)
        filters[1] = weight
        assert sums_are_short(filters) == short


def test_weights_of_both_signs_count_apart() -> None:
    """Operands that meet those of one sign may be 0."""
    half = (2 ** (BITS - 1) - 1) // (255 * 127)
    filters = np.tile(np.array([127, -127], np.int8), half).reshape(1, -1, 1, 1)
    assert sums_are_short(filters)
    assert not sums_are_short(np.concatenate([filters, filters], axis=1))


def test_no_filters_are_short() -> None:
    assert sums_are_short(np.zeros((0, 4, 3, 3), np.int8))
