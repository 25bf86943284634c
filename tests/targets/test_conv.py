"""Conv and its relatives against onnx.reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from oputil import assert_close, backend_cases, run_case, run_op
from reference import reference, runtime
from support.integer_products import qlinear_conv

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import run_node

CASES = backend_cases("Conv")


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_onnx_case(case: Any) -> None:
    run_case(case)


def random(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return rng.standard_normal(shape).astype(np.float32)


def check_conv(x: np.ndarray, w: np.ndarray, b: np.ndarray | None, attrs: dict[str, Any],
               symbolic: Any = False) -> None:  # fmt: skip
    (want,) = reference("Conv", [x, w, b], attrs)
    (got,) = run_op("Conv", [x, w, b], attrs, symbolic=symbolic)
    assert_close(got, want, rtol=1e-4, atol=1e-4)


@st.composite
def windows(draw: st.DrawFn) -> tuple[dict[str, Any], list[int], list[int]]:
    """Attributes, spatial extents and kernel extents that fit together."""
    rank = draw(st.integers(1, 3))
    dims = st.lists(st.integers(1, 3), min_size=rank, max_size=rank)
    kernel, strides, dilations = draw(dims), draw(dims), draw(dims)
    attrs: dict[str, Any] = {"strides": tuple(strides), "dilations": tuple(dilations)}
    mode = draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    attrs["auto_pad"] = mode
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    spatial = [r + draw(st.integers(0, 21 if rank == 1 else 6)) for r in reach]
    if mode == "NOTSET":
        attrs["pads"] = tuple(draw(st.integers(0, 2)) for _ in range(2 * rank))
    return attrs, spatial, kernel


@settings(max_examples=20)
@given(windows(), st.sampled_from([1, 2, 3]), st.integers(1, 4), st.integers(1, 5),
       st.sampled_from([False, True, "distinct"]), st.integers(0, 2**16))  # fmt: skip
def test_conv_of_any_window(
    window: tuple[dict[str, Any], list[int], list[int]], groups: int, depth: int, filters: int,
    symbolic: Any, seed: int,
) -> None:  # fmt: skip
    attrs, spatial, kernel = window
    rng = np.random.default_rng(seed)
    x = random(rng, 2, groups * depth, *spatial)
    w = random(rng, groups * filters, depth, *kernel)
    bias = random(rng, groups * filters) if seed % 2 else None
    check_conv(x, w, bias, {**attrs, "group": groups}, symbolic)


@pytest.mark.parametrize(
    ("shape", "filters", "kernel", "attrs"),
    [
        ((1, 16, 14, 14), 21, (1, 1), {}),
        ((2, 32, 1, 1), 40, (1, 1), {}),
        ((1, 3, 40, 41), 16, (7, 7), {"strides": (2, 2), "pads": (3, 3, 3, 3)}),
        ((1, 24, 33, 35), 24, (3, 3), {"group": 24, "pads": (1, 1, 1, 1)}),
        ((1, 24, 33, 35), 24, (5, 5), {"group": 24, "pads": (2, 2, 2, 2), "strides": (2, 2)}),
        ((1, 8, 64), 8, (5,), {"pads": (8, 0), "dilations": (2,)}),
        ((1, 4, 32, 32), 12, (4, 4), {"strides": (4, 4)}),
        ((1, 4, 9, 70), 12, (1, 1), {"strides": (2, 2)}),
    ],
)
@pytest.mark.parametrize("symbolic", [False, True])
def test_conv_of_common_shapes(
    shape: tuple[int, ...], filters: int, kernel: tuple[int, ...], attrs: dict[str, Any],
    symbolic: bool,
) -> None:  # fmt: skip
    rng = np.random.default_rng(0)
    x = random(rng, *shape)
    w = random(rng, filters, shape[1] // attrs.get("group", 1), *kernel)
    check_conv(x, w, random(rng, filters), attrs, symbolic)


@pytest.mark.parametrize("symbolic", [False, "distinct"])
@pytest.mark.parametrize("shape", [(50, 4, 0, 7), (50, 4, 7, 0), (0, 4, 7, 7)])
@pytest.mark.parametrize("group", [1, 4])
def test_steps_beyond_the_window_over_no_pixels(
    group: int, shape: tuple[int, ...], symbolic: Any
) -> None:
    """No rows have no last one, whose window would end before the first begins."""
    attrs = {"strides": (3, 3), "auto_pad": "SAME_UPPER", "group": group}
    inputs = [np.ones(shape, np.float32), np.ones((8, 4 // group, 1, 1), np.float32)]
    (got,) = run_op("Conv", inputs, attrs, symbolic=symbolic)
    assert got.shape == (shape[0], 8, *(-(-size // 3) for size in shape[2:]))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_conv_of_other_floats(dtype: str) -> None:
    rng = np.random.default_rng(1)
    x, w = (random(rng, *s).astype(dtype) for s in ((2, 4, 9, 9), (6, 4, 3, 3)))
    (want,) = reference("Conv", [x.astype("float64"), w.astype("float64")], {})
    (got,) = run_op("Conv", [x, w])
    assert_close(got, want.astype(dtype), rtol=2e-3 if dtype == "float16" else 1e-12, atol=1e-3)


@settings(max_examples=15)
@given(st.integers(1, 3), st.sampled_from([1, 2]), st.sampled_from([False, True, "distinct"]),
       st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER", "output_shape"]),
       st.integers(0, 2**16))  # fmt: skip
def test_conv_transpose(rank: int, groups: int, symbolic: Any, mode: str, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def draw(low: int, high: int, count: int = rank) -> tuple[int, ...]:
        return tuple(int(v) for v in rng.integers(low, high + 1, count))

    strides, kernel, dilations = draw(1, 6 if rank == 1 else 3), draw(1, 4), draw(1, 2)
    if mode != "NOTSET":  # onnxruntime shrinks the output where windows leave gaps
        kernel = tuple(max(k, s) for k, s in zip(kernel, strides, strict=True))
    attrs: dict[str, Any] = {"strides": strides, "dilations": dilations, "group": groups}
    spatial = draw(1, 20 if rank == 1 else 5)
    if mode == "output_shape":
        attrs["output_shape"] = tuple(n * s for n, s in zip(spatial, strides, strict=True))
    else:
        attrs["auto_pad"] = mode
    if mode == "NOTSET":
        attrs["output_padding"] = tuple(int(rng.integers(0, s)) for s in strides)
        limits = (k // 2 for k in kernel * 2)
        attrs["pads"] = tuple(map(min, draw(0, 1, 2 * rank), limits))
    x = random(rng, 2, 2 * groups, *spatial)
    w = random(rng, 2 * groups, 3, *kernel)
    bias = random(rng, 3 * groups) if seed % 2 else None
    (want,) = runtime("ConvTranspose", [x, w, bias], attrs)
    (got,) = run_op("ConvTranspose", [x, w, bias], attrs, symbolic=symbolic)
    assert_close(got, want, rtol=1e-4, atol=1e-4)


def test_deform_conv_in_three_dims_follows_conv_where_nothing_moves() -> None:
    rng = np.random.default_rng(2)
    x, w = random(rng, 1, 4, 5, 6, 4), random(rng, 6, 2, 2, 3, 2)
    attrs = {"group": 2, "offset_group": 2, "pads": (1, 0, 1, 0, 1, 0), "strides": (1, 2, 1)}
    plain = {k: v for k, v in attrs.items() if k != "offset_group"}
    (want,) = reference("Conv", [x, w], plain)
    offset = np.zeros((1, 2 * 12 * 3, *want.shape[2:]), np.float32)
    (got,) = run_op("DeformConv", [x, w, offset], attrs)
    assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", backend_cases("ConvTranspose", "DeformConv", "ConvInteger",
                                               "QLinearConv"), ids=lambda c: c.name)  # fmt: skip
def test_onnx_case_of_relatives(case: Any) -> None:
    run_case(case)


def small(rng: np.random.Generator, dtype: str, *shape: int) -> np.ndarray:
    info = np.iinfo(dtype)
    return rng.integers(info.min, info.max + 1, shape).astype(dtype)


@pytest.mark.parametrize("weight", ["int8", "uint8"])
@pytest.mark.parametrize(("groups", "per_channel", "symbolic"),
                         [(1, True, False), (2, False, True), (4, True, False)])  # fmt: skip
def test_qlinear_conv(weight: str, groups: int, per_channel: bool, symbolic: bool) -> None:
    rng = np.random.default_rng(groups)
    x, w = small(rng, "uint8", 2, 8, 11, 13), small(rng, weight, 8, 8 // groups, 3, 3)
    count = 8 if per_channel else 1
    w_scale = rng.uniform(0.001, 0.01, count).astype(np.float32)
    w_zero = np.full(count, 0 if weight == "int8" else 128, weight)
    bias = rng.integers(-1000, 1000, 8).astype(np.int32)
    inputs = [x, np.float32(0.02), np.uint8(119), w, w_scale, w_zero, np.float32(0.05),
              np.uint8(131), bias]  # fmt: skip
    attrs = {"pads": (1, 1, 1, 1), "strides": (2, 1), "group": groups}
    want = qlinear_conv(*inputs, **attrs)
    (got,) = run_op("QLinearConv", inputs, attrs, symbolic=symbolic)
    assert_close(got, want)
    assert len(np.unique(got)) > 20


def test_conv_integer_with_a_zero_point_per_channel() -> None:
    rng = np.random.default_rng(3)
    x, w = small(rng, "uint8", 1, 3, 8, 8), small(rng, "int8", 4, 3, 3, 3)
    inputs = [x, w, np.uint8(7), small(rng, "int8", 4)]
    (want,) = reference("ConvInteger", inputs, {"pads": (1, 1, 1, 1)})
    (got,) = run_op("ConvInteger", inputs, {"pads": (1, 1, 1, 1)})
    assert_close(got, want)


@pytest.mark.parametrize(
    ("activation", "params"),
    [("Relu", ()), ("LeakyRelu", (0.3,)), ("Clip", (-0.5, 1.5)), ("HardSigmoid", (0.3, 0.4)),
     ("Tanh", ()), ("Sigmoid", ())],
)  # fmt: skip
@pytest.mark.parametrize("residual", [False, True])
def test_fused_conv(activation: str, params: tuple[float, ...], residual: bool) -> None:
    rng = np.random.default_rng(4)
    x, w, bias = random(rng, 1, 4, 7, 9), random(rng, 6, 4, 1, 1), random(rng, 6)
    inputs = [x, w, bias, *([random(rng, 1, 6, 7, 9)] if residual else [])]
    attrs: dict[str, Any] = {"activation": activation}
    if params:
        attrs["activation_params"] = params
    (want,) = runtime("FusedConv", inputs, attrs, domain="com.microsoft")
    node = Graph().add_node("FusedConv", [], attrs, domain="com.microsoft")
    compiled = run_op("FusedConv", inputs, attrs, domain="com.microsoft")
    for got in (*compiled, *run_node(node, inputs)):
        assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "params"), [("Relu", ()), ("Clip", (-0.5, 1.5)), ("HardSigmoid", (0.3, 0.4))]
)
def test_fused_activations_keep_nan(activation: str, params: tuple[float, ...]) -> None:
    rng = np.random.default_rng(5)
    x, w = random(rng, 1, 4, 7, 9), random(rng, 6, 4, 1, 1)
    x[0, 1, 2, 3] = np.nan
    attrs: dict[str, Any] = {"activation": activation}
    if params:
        attrs["activation_params"] = params
    (got,) = run_op("FusedConv", [x, w], attrs, domain="com.microsoft")
    want = np.zeros(got.shape, bool)
    want[0, :, 2, 3] = True
    np.testing.assert_array_equal(np.isnan(got), want)
