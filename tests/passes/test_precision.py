"""Rounding to float types as NumPy does it, and constants that are a number to its last bits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphkiln.ir.types import dtype, to_numpy_dtype
from graphkiln.passes.precision import (
    FLOATS,
    ULPS,
    is_number,
    largest_number,
    least_normal,
    narrowed,
    rounded,
    unit,
)

KINDS = sorted(FLOATS)
EDGES = [0.0, -0.0, 1.0, -1.5, 65504.0, 65519.0, 65520.0, 6e-8, 2.9e-8, 3.4e38, -3.5e38, 1e-45]
EDGES += [7e-46, 1e308, 1 / 3, math.inf, -math.inf]


def through_numpy(number: float, kind: str) -> float:
    with np.errstate(all="ignore"):
        return float(np.float64(number).astype(to_numpy_dtype(dtype(kind))))


@pytest.mark.parametrize("kind", [k for k in KINDS if k != "bfloat16"])
@pytest.mark.parametrize("number", EDGES)
def test_edges_round_as_numpy_rounds(number: float, kind: str) -> None:
    found, expected = rounded(number, kind), through_numpy(number, kind)
    assert found == expected and math.copysign(1, found) == math.copysign(1, expected)


@pytest.mark.parametrize("kind", KINDS)
@given(number=st.floats(allow_nan=False, width=32))
def test_numbers_round_as_numpy_rounds(number: float, kind: str) -> None:
    assert rounded(number, kind) == through_numpy(number, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_the_unit_is_the_distance_of_neighbours(kind: str) -> None:
    numpy = to_numpy_dtype(dtype(kind))
    for number in (1.0, 1.75, 2.0, 100.0, least_normal(kind), least_normal(kind) / 4):
        step = unit(number, kind)
        assert rounded(number + step, kind) == number + step
        assert rounded(number + step / 4, kind) == number
    assert largest_number(numpy) == rounded(largest_number(numpy), kind)


@pytest.mark.parametrize("kind", ["float32", "float64", "float16"])
def test_what_is_a_number_to_its_last_bits(kind: str) -> None:
    root = rounded(math.sqrt(2), kind)
    step = unit(root, kind)
    assert is_number(root, math.sqrt(2), kind)
    assert is_number(root + ULPS * step, math.sqrt(2), kind)
    assert not is_number(root + (ULPS + 1) * step, math.sqrt(2), kind)
    assert not is_number(0.5 + unit(0.5, kind), 0.5, kind)
    assert is_number(0.5, 0.5, kind) and is_number(math.inf, math.inf, kind)
    assert not is_number(-0.0, 0.0, kind) and not is_number(-math.inf, math.inf, kind)


def test_integers_are_no_other_number() -> None:
    assert is_number(3, 3, "int32") and not is_number(3, 4, "int32")
    assert not is_number(1, math.sqrt(2), "int32")


@pytest.mark.parametrize(
    ("wide", "kept"),
    [
        ([1.0, -2.5, 0.0], True),
        ([1 / 3], True),
        ([1e39], False),
        ([math.nan], False),
        ([math.inf], False),
        ([1e-39], False),
        ([2.0**-140], True),
        ([1e-50], False),
    ],
)
def test_what_keeps_its_digits_in_a_shorter_type(wide: list[float], kept: bool) -> None:
    array = np.array(wide)
    found = narrowed(array, np.dtype(np.float32))
    assert (found is not None) is kept
    if kept:
        np.testing.assert_array_equal(found, array.astype(np.float32))
    drowned = narrowed(array, np.dtype(np.float32), True)
    assert (drowned is not None) is bool(np.isfinite(array).all() and np.abs(array).max() < 1e38)
