"""Scales, zero points and quantized weights, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from graphkiln.passes.quantize.numbers import (
    Parameters,
    activation_parameters,
    bias_parameters,
    decibels,
    quantized,
    quantized_bias,
    restored,
    weight_parameters,
)
from graphkiln.passes.ranges import Range

FINITE = st.floats(-1e6, 1e6, width=32)


@given(low=st.floats(-1e5, 0), high=st.floats(0, 1e5), kind=st.sampled_from(["uint8", "int8"]))
def test_a_range_is_held_and_zero_is_a_number(low: float, high: float, kind: str) -> None:
    p = activation_parameters(Range(low, high), kind)
    limits = np.iinfo(kind)
    scale, zero = float(p.scale), int(p.zero)
    assert p.zero.dtype == kind and limits.min <= zero <= limits.max and scale > 0
    assert p.axis is None
    # Half a step is lost where the zero point is rounded, and float32 rounds the scale.
    slack = scale * 0.5001 + 1e-6 * max(-low, high)
    assert scale * (limits.min - zero) <= low + slack
    assert scale * (limits.max - zero) >= high - slack


def test_signed_activations_are_symmetric() -> None:
    p = activation_parameters(Range(-2.0, 1.0), "int8")
    assert p.zero == 0 and p.scale == np.float32(2 / 127)


def test_unsigned_ones_use_the_whole_range() -> None:
    p = activation_parameters(Range(-1.0, 3.0), "uint8")
    assert p.zero == 64 and p.scale == np.float32(4 / 255)
    assert activation_parameters(Range(0.0, 0.0), "uint8").scale == 1


@given(
    weights=arrays.arrays(np.float32, arrays.array_shapes(min_dims=2, max_dims=4), elements=FINITE),
    axis=st.sampled_from([None, 0, 1]),
)
def test_weights_are_off_by_half_a_step(weights: np.ndarray, axis: int | None) -> None:
    p = weight_parameters(weights, axis)
    integers = quantized(weights, p)
    assert integers.dtype == np.int8 and np.abs(integers.astype(int)).max() <= 127
    shape = [1] * weights.ndim
    if axis is not None:
        shape[axis] = -1
        assert p.scale.shape == (weights.shape[axis],)
    step = p.scale.astype(np.float64).reshape(shape if axis is not None else ())
    assert np.all(np.abs(restored(integers, p) - weights) <= step * (0.5 + 1e-4))


def test_each_channel_has_its_scale() -> None:
    weights = np.array([[1.0, -2.0], [100.0, 50.0], [0.0, 0.0]], np.float32)
    p = weight_parameters(weights, 0)
    np.testing.assert_array_equal(p.scale, np.array([2 / 127, 100 / 127, 1], np.float32))
    np.testing.assert_array_equal(quantized(weights, p), [[64, -127], [127, 64], [0, 0]])


def test_a_bias_has_the_scale_of_the_products() -> None:
    x = Parameters(np.float32(0.5), np.uint8(3))
    w = Parameters(np.array([0.25, 0.5], np.float32), np.zeros(2, np.int8), 0)
    p = bias_parameters(x, w)
    np.testing.assert_array_equal(p.scale, np.array([0.125, 0.25], np.float32))
    assert p.axis == 0 and p.zero.dtype == np.int32
    found = quantized_bias(np.array([1.0, -1.0], np.float32), p)
    np.testing.assert_array_equal(found, np.array([8, -4], np.int32))
    assert bias_parameters(x, Parameters(np.float32(2), np.int8(0))).axis is None


@pytest.mark.parametrize(
    ("bias", "scale"), [(1.0, 1e-10), (1.0, 0.0), (np.inf, 1.0), (np.nan, 1.0), (-1.0, 1e-10)]
)
def test_a_bias_that_does_not_fit(bias: float, scale: float) -> None:
    p = Parameters(np.float32(scale), np.zeros((), np.int32))
    assert quantized_bias(np.array([bias], np.float32), p) is None
    assert (
        quantized_bias(np.array([2.0**30], np.float32), Parameters(np.float32(1), p.zero)) == 2**30
    )


def test_decibels() -> None:
    assert decibels(100.0, 1.0) == pytest.approx(20)
    assert decibels(1.0, 0.0) is None and decibels(0.0, 1.0) is None
