"""Resize, GridSample and regions of interest against onnx.reference and onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oputil import assert_close, backend_cases, run_case, run_op
from reference import reference, runtime

from graphkiln.ir.dims import sym
from graphkiln.ir.ops.vision import keep_aspect, scaled

TRANSFORMS = [
    "half_pixel", "half_pixel_symmetric", "pytorch_half_pixel", "align_corners", "asymmetric",
    "tf_crop_and_resize",
]  # fmt: skip


@pytest.mark.parametrize(
    "case", backend_cases("Resize", "GridSample", "RoiAlign", "AffineGrid"), ids=lambda c: c.name
)
def test_onnx_case(case: Any) -> None:
    run_case(case)


@settings(max_examples=25)
@given(
    st.sampled_from(["nearest", "linear", "cubic"]), st.sampled_from(TRANSFORMS),
    st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    st.booleans(), st.booleans(), st.booleans(), st.sampled_from([False, True]),
    st.integers(0, 2**16),
)  # fmt: skip
def test_resize(
    mode: str, transform: str, nearest: str, by_sizes: bool, known: bool, smooth: bool,
    symbolic: bool, seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    attrs: dict[str, Any] = {
        "mode": mode, "coordinate_transformation_mode": transform, "nearest_mode": nearest,
    }  # fmt: skip
    if mode != "nearest":
        attrs["antialias"] = int(smooth)
        attrs["exclude_outside"] = int(rng.integers(0, 2)) if mode == "cubic" else 0
    x = rng.standard_normal((1, 2, int(rng.integers(2, 9)), int(rng.integers(2, 9))))
    x = x.astype(np.float32)
    new = np.array([1, 2, *rng.integers(2, 14, 2)], np.int64)
    # Scales whose product with the extent is just above a whole number in any precision.
    scales = ((new + 0.125) / np.array(x.shape)).astype(np.float32)
    scales[:2] = 1
    roi = None
    if transform == "tf_crop_and_resize":
        roi = np.array([0, 0, 0.1, 0.2, 1, 1, 0.9, 1.3], np.float32)
        attrs["extrapolation_value"] = 7.5
    inputs = [x, roi, None, new] if by_sizes else [x, roi, scales]
    (want,) = reference("Resize", inputs, attrs)
    constant = {1, 2, 3} if known else {1} if seed % 2 else set()
    (got,) = run_op("Resize", inputs, attrs, symbolic=symbolic and known, const_inputs=constant)
    assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_of_one_axis_in_three_dims(mode: str) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 4, 5, 6)).astype(np.float32)
    attrs = {"mode": mode, "axes": (4, 2)}
    inputs = [x, None, np.array([1.5, 2.0], np.float32)]
    (want,) = reference("Resize", inputs, attrs)
    for constant in ((), (2,)):
        (got,) = run_op("Resize", inputs, attrs, const_inputs=constant)
        assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("known", [False, True])
def test_resize_that_keeps_the_aspect_ratio(policy: str, known: bool) -> None:
    x = np.random.default_rng(0).standard_normal((1, 1, 5, 7)).astype(np.float32)
    attrs = {"mode": "linear", "axes": (2, 3), "keep_aspect_ratio_policy": policy}
    inputs = [x, None, None, np.array([9, 8])]
    (want,) = reference("Resize", inputs, attrs)
    (got,) = run_op("Resize", inputs, attrs, const_inputs={3} if known else ())
    assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32", "float16", "float64"])
@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
def test_resize_of_other_types(dtype: str, mode: str) -> None:
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((1, 2, 6, 5)) * 60).clip(-128, 127).astype(dtype)
    inputs = [x, None, np.array([1, 1, 1.6, 2.5], np.float32)]
    (want,) = reference("Resize", inputs, {"mode": mode})
    (got,) = run_op("Resize", inputs, {"mode": mode}, const_inputs={2})
    assert_close(got, want, rtol=2e-3, atol=0.06)


def test_scaled_extents_stay_dims_where_the_scale_is_a_simple_fraction() -> None:
    n = sym("N")
    assert scaled(n, 2.0) == 2 * n
    assert scaled(n, 0.5) == n // 2
    assert scaled(n, 1.25) == 5 * n // 4
    assert scaled(n, float(np.float32(1 / 3))) == n // 3
    assert scaled(n, float(np.float32(0.7))) is None
    assert scaled(10, float(np.float32(0.7))) == 7
    with pytest.raises(ValueError, match="sideways"):
        keep_aspect("sideways", [1], [1])


@settings(max_examples=15)
@given(st.sampled_from(["nearest", "linear", "cubic"]), st.booleans(),
       st.sampled_from(["zeros", "border", "reflection"]), st.integers(2, 3),
       st.sampled_from([False, True]), st.integers(0, 2**16))  # fmt: skip
def test_grid_sample(
    mode: str, align: bool, padding: str, rank: int, symbolic: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rank = 2 if mode == "cubic" else rank
    spatial = rng.integers(2, 6, rank)
    x = rng.standard_normal((2, 2, *spatial)).astype(np.float32)
    grid = rng.uniform(-2.5, 2.5, (2, *rng.integers(1, 5, rank), rank)).astype(np.float32)
    attrs = {"mode": mode, "align_corners": int(align), "padding_mode": padding}
    # onnxruntime does not bring positions inside before a cubic blend, as PyTorch does not.
    oracle = reference if mode == "cubic" else runtime
    (want,) = oracle("GridSample", [x, grid], attrs)
    (got,) = run_op("GridSample", [x, grid], attrs, symbolic=symbolic)
    assert_close(got, want, rtol=1e-3, atol=1e-3)


def test_grid_sample_survives_positions_far_away() -> None:
    x = np.arange(12, dtype=np.float32).reshape(1, 1, 3, 4)
    grid = np.array([[[[1e30, 0.0], [-1e30, -1e30], [np.nan, 0.0], [np.inf, 0.0]]]], np.float32)
    for padding in ("zeros", "border", "reflection"):
        for mode in ("nearest", "linear", "cubic"):
            (got,) = run_op("GridSample", [x, grid], {"mode": mode, "padding_mode": padding})
            assert got.shape == (1, 1, 1, 4)


@pytest.mark.parametrize("mode", ["avg", "max"])
@pytest.mark.parametrize("transform", ["half_pixel", "output_half_pixel"])
@pytest.mark.parametrize("ratio", [0, 2])
def test_roi_align(mode: str, transform: str, ratio: int) -> None:
    rng = np.random.default_rng(ratio)
    x = rng.standard_normal((2, 3, 9, 11)).astype(np.float32)
    corner = rng.uniform(-2, 14, (6, 2))
    rois = np.concatenate([corner, corner + rng.uniform(-1, 9, (6, 2))], 1).astype(np.float32)
    batches = rng.integers(0, 2, 6)
    attrs = {
        "mode": mode, "coordinate_transformation_mode": transform, "sampling_ratio": ratio,
        "output_height": 3, "output_width": 4, "spatial_scale": 0.75,
    }  # fmt: skip
    (want,) = reference("RoiAlign", [x, rois, batches], attrs)
    (got,) = run_op("RoiAlign", [x, rois, batches], attrs)
    assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_max_roi_pool() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 9, 11)).astype(np.float32)
    corner = rng.uniform(-2, 14, (12, 2))
    far = corner + rng.uniform(0, 9, (12, 2))
    rois = np.concatenate([rng.integers(0, 2, (12, 1)), corner, far], 1).astype(np.float32)
    attrs = {"pooled_shape": (3, 4), "spatial_scale": 0.75}
    (want,) = runtime("MaxRoiPool", [x, rois], attrs)
    (got,) = run_op("MaxRoiPool", [x, rois], attrs)
    assert_close(got, want)


@pytest.mark.parametrize("align", [0, 1])
def test_affine_grid_of_a_known_size(align: int) -> None:
    theta = np.random.default_rng(0).standard_normal((2, 3, 4)).astype(np.float32)
    inputs = [theta, np.array([2, 1, 3, 4, 5])]
    (want,) = reference("AffineGrid", inputs, {"align_corners": align})
    (got,) = run_op("AffineGrid", inputs, {"align_corners": align}, const_inputs={1})
    assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("place", [(0, 0), (1, 2), (3, 3)])
def test_nan_wins_in_the_regions_it_lies_in(place: tuple[int, int]) -> None:
    x = np.arange(64, dtype=np.float32).reshape(1, 1, 8, 8)
    x[0, 0][place] = np.nan
    rois = np.array([[0, 0, 0, 3, 3], [0, 5, 5, 7, 7]], np.float32)
    (pooled,) = run_op("MaxRoiPool", [x, rois], {"pooled_shape": (1, 1)})
    np.testing.assert_array_equal(pooled.ravel(), [np.nan, 63])
    at = {"mode": "max", "output_height": 1, "output_width": 1, "sampling_ratio": 4}
    aligned = run_op("RoiAlign", [x, rois[:, 1:], np.zeros(2, np.int64)], at)[0].ravel()
    assert np.isnan(aligned).tolist() == [True, False]
