"""Pools against onnx.reference and onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper
from oputil import assert_close, backend_cases, one_node, run_case, run_op
from reference import reference, runtime

import graphkiln
from graphkiln.ir.interpreter import evaluate

POOLS = ("MaxPool", "AveragePool", "LpPool", "GlobalAveragePool", "GlobalMaxPool", "MaxUnpool")


@pytest.mark.parametrize("case", backend_cases(*POOLS), ids=lambda c: c.name)
def test_onnx_case(case: Any) -> None:
    run_case(case)


@settings(max_examples=30)
@given(st.sampled_from(["MaxPool", "AveragePool", "LpPool"]), st.integers(1, 3),
       st.sampled_from([False, True, "distinct"]),
       st.sampled_from(["NOTSET", "NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]),
       st.integers(0, 2**16))  # fmt: skip
def test_pool_of_any_window(op: str, rank: int, symbolic: Any, mode: str, seed: int) -> None:
    rng = np.random.default_rng(seed)

    def draw(low: int, high: int, count: int = rank) -> tuple[int, ...]:
        return tuple(int(v) for v in rng.integers(low, high + 1, count))

    kernel, strides = draw(1, 4), draw(1, 3)
    attrs: dict[str, Any] = {"kernel_shape": kernel, "strides": strides, "auto_pad": mode}
    dilations = (1,) * rank
    if mode == "NOTSET":
        dilations = attrs["dilations"] = draw(1, 2)
        attrs["pads"] = tuple(map(min, draw(0, 2, 2 * rank), (k - 1 for k in kernel * 2)))
        if op != "LpPool":
            attrs["ceil_mode"] = seed % 2
    if op == "AveragePool":
        attrs["count_include_pad"] = seed // 2 % 2
    reach = ((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))
    spatial = map(sum, zip(reach, draw(0, 40 if rank == 1 else 5), strict=True))
    x = rng.standard_normal((2, 3, *spatial)).astype(np.float32)
    (want,) = runtime(op, [x], attrs)
    (got,) = run_op(op, [x], attrs, symbolic=symbolic)
    assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("symbolic", [False, True, "distinct"])
@pytest.mark.parametrize(
    ("kernel", "stride", "dilation", "ceil"),
    [((13, 13), 1, 1, 0), ((9, 13), 2, 1, 1), ((7, 6), 3, 2, 1), ((5, 4, 3), 2, 1, 0),
     ((1, 40), 1, 1, 0), ((40, 1), 2, 1, 0)],
)  # fmt: skip
def test_large_windows(
    kernel: tuple[int, ...], stride: int, dilation: int, ceil: int, symbolic: Any
) -> None:
    rng = np.random.default_rng(sum(kernel))
    rank = len(kernel)
    reach = [(k - 1) * dilation + 1 for k in kernel]
    x = rng.standard_normal((2, 3, *(r + i + 4 for i, r in enumerate(reach)))).astype(np.float32)
    x[rng.random(x.shape) < 0.001] = np.nan
    pads = [k // 2 for k in kernel] + [(k - 1) // 2 for k in kernel]
    attrs = {"kernel_shape": kernel, "strides": (stride,) * rank, "pads": pads,
             "dilations": (dilation,) * rank, "ceil_mode": ceil}  # fmt: skip
    clean = np.nan_to_num(x, nan=1e30)  # onnxruntime loses NaN, which wins as a large number does
    (want,) = runtime("MaxPool", [clean], attrs)
    (got,) = run_op("MaxPool", [x], attrs, symbolic=symbolic)
    np.testing.assert_array_equal(np.nan_to_num(got, nan=1e30), want)


@pytest.mark.parametrize("symbolic", [False, "distinct"])
@pytest.mark.parametrize("shape", [(50, 3, 0, 4), (50, 3, 4, 0), (2, 0, 4, 4), (0, 3, 4, 4)])
@pytest.mark.parametrize("op", ["MaxPool", "AveragePool", "LpPool"])
def test_steps_beyond_the_window_over_no_pixels(
    op: str, shape: tuple[int, ...], symbolic: Any
) -> None:
    """No rows have no last one, whose window would end before the first begins."""
    attrs = {"kernel_shape": (1, 1), "strides": (3, 3), "auto_pad": "SAME_UPPER"}
    (got,) = run_op(op, [np.ones(shape, np.float32)], attrs, symbolic=symbolic)
    assert got.shape == (*shape[:2], *(-(-size // 3) for size in shape[2:]))


@pytest.mark.parametrize("storage_order", [0, 1])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_max_pool_indices(rank: int, storage_order: int) -> None:
    x = np.random.default_rng(rank).permutation(2 * 2 * 7**rank).astype(np.float32)
    x = x.reshape(2, 2, *(7,) * rank)
    attrs = {
        "kernel_shape": (3,) * rank, "strides": (2,) * rank, "pads": (1,) * (2 * rank),
        "storage_order": storage_order,
    }  # fmt: skip
    wants = runtime("MaxPool", [x], attrs, num_outputs=2)
    gots = run_op("MaxPool", [x], attrs, num_outputs=2)
    for got, want in zip(gots, wants, strict=True):
        assert_close(got, want)


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint8"])
def test_max_pool_of_other_types(dtype: str) -> None:
    x = (np.random.default_rng(0).standard_normal((1, 2, 9, 9)) * 50).astype(dtype)
    attrs = {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1), "strides": (2, 2)}
    (want,) = reference("MaxPool", [x.astype("float64")], attrs)
    (got,) = run_op("MaxPool", [x], attrs)
    assert_close(got, want.astype(dtype))


def test_padding_never_wins_a_max_pool() -> None:
    x = np.full((1, 1, 4, 4), -1e30, np.float32)
    (got,) = run_op("MaxPool", [x], {"kernel_shape": (3, 3), "pads": (1, 1, 1, 1)})
    np.testing.assert_array_equal(got, x)


def _windows(x: np.ndarray, kernel: int, stride: int, pad: int) -> np.ndarray:
    """The elements of each window of a square pool, on the last axis; padding is -inf."""
    padded = np.pad(x, [(0, 0), (0, 0), (pad, pad), (pad, pad)], constant_values=-np.inf)
    seen = np.lib.stride_tricks.sliding_window_view(padded, (kernel, kernel), (2, 3))
    return seen[:, :, ::stride, ::stride].reshape(*seen[:, :, ::stride, ::stride].shape[:4], -1)


def _with_nans(seed: int, kernel: int, size: int = 23, dtype: str = "float32") -> np.ndarray:
    """Some single NaNs of both signs, a border row of them, and a block that fills a window."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, 2, size, size)).astype(dtype)
    x[rng.random(x.shape) < 0.03] = np.copysign(np.nan, -1)
    x[rng.random(x.shape) < 0.03] = np.nan
    x[0, 0, -1] = x[0, 0, : kernel + 1, : kernel + 1] = np.nan
    return x


NAN_POOLS = [(2, 2, 0), (3, 1, 0), (3, 2, 1), (5, 1, 2), (7, 3, 0), (9, 2, 4)]


@pytest.mark.parametrize("symbolic", [False, "distinct"])
@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize(("kernel", "stride", "pad"), NAN_POOLS)
def test_nan_wins_a_max_pool(kernel: int, stride: int, pad: int, dtype: str, symbolic: Any) -> None:
    x = _with_nans(kernel, kernel, dtype=dtype)
    attrs = {"kernel_shape": (kernel,) * 2, "strides": (stride,) * 2, "pads": (pad,) * 4}
    (got,) = run_op("MaxPool", [x], attrs, symbolic=symbolic)
    np.testing.assert_array_equal(got, _windows(x, kernel, stride, pad).max(-1))


@pytest.mark.parametrize(("kernel", "stride", "pad"), NAN_POOLS)
def test_the_first_nan_of_a_window_gives_the_index(kernel: int, stride: int, pad: int) -> None:
    x = _with_nans(kernel, kernel)
    attrs = {"kernel_shape": (kernel,) * 2, "strides": (stride,) * 2, "pads": (pad,) * 4}
    places = np.arange(x.size, dtype=np.float64).reshape(x.shape)
    seen = _windows(x, kernel, stride, pad)
    first = seen.argmax(-1)[..., None]  # of NumPy, the first NaN too
    want = np.take_along_axis(_windows(places, kernel, stride, pad), first, -1)[..., 0]
    for pooled, found in (
        run_op("MaxPool", [x], attrs, num_outputs=2),
        evaluate(one_node("MaxPool", [x], attrs, num_outputs=2), {"x0": x}),
    ):
        np.testing.assert_array_equal(pooled, seen.max(-1))
        np.testing.assert_array_equal(found, want)


@pytest.mark.parametrize(("kernel", "stride", "pad"), NAN_POOLS)
def test_what_onnxruntime_lets_through_comes_through(kernel: int, stride: int, pad: int) -> None:
    """There a NaN wins or loses by its place; what has no NaN to lose is the same."""
    x = _with_nans(kernel, kernel)
    attrs = {"kernel_shape": (kernel,) * 2, "strides": (stride,) * 2, "pads": (pad,) * 4}
    (theirs,) = runtime("MaxPool", [x], attrs)
    (ours,) = run_op("MaxPool", [x], attrs)
    assert np.isnan(ours[np.isnan(theirs)]).all()
    numbers = ~np.isnan(ours)
    np.testing.assert_array_equal(ours[numbers], theirs[numbers])


@pytest.mark.parametrize(("kernel", "stride", "pad"), NAN_POOLS)
def test_nan_wins_a_max_pool_on_blocks(kernel: int, stride: int, pad: int) -> None:
    """Behind a convolution, which lays its channels out in blocks."""
    weights = np.zeros((16, 2, 1, 1), np.float32)
    weights[np.arange(16), np.arange(16) % 2] = 1
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"]),
        helper.make_node("MaxPool", ["c"], ["y"], kernel_shape=(kernel,) * 2,
                         strides=(stride,) * 2, pads=(pad,) * 4),
    ]  # fmt: skip
    x = _with_nans(kernel, kernel)
    info = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "g", [info("x", 1, x.shape)],
        [info("y", 1, None), info("c", 1, None)],
        [numpy_helper.from_array(weights, "w")],
    )  # fmt: skip
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    artifact = graphkiln.compile(proto, jobs=1)
    assert "PoolBlocked" in artifact.contents.ir_text
    pooled, convolved = artifact.session().run(None, {"x": x})
    np.testing.assert_array_equal(pooled, _windows(convolved, kernel, stride, pad).max(-1))


@pytest.mark.parametrize("p", [1, 2, 3, 5])
@pytest.mark.parametrize("op", ["LpPool", "GlobalLpPool"])
def test_norms(op: str, p: int) -> None:
    x = np.random.default_rng(p).standard_normal((2, 3, 6, 7)).astype(np.float32)
    attrs: dict[str, Any] = {"p": p, **({"kernel_shape": (2, 3)} if op == "LpPool" else {})}
    (want,) = runtime(op, [x], attrs)
    (got,) = run_op(op, [x], attrs)
    assert_close(got, want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 7, 7), (1, 5, 112, 13), (2, 3, 4, 5, 6), (1, 2, 1)])
@pytest.mark.parametrize("op", ["GlobalAveragePool", "GlobalMaxPool"])
@pytest.mark.parametrize("symbolic", [False, "distinct"])
def test_global_pools(shape: tuple[int, ...], op: str, symbolic: Any) -> None:
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    axes = tuple(range(2, len(shape)))
    want = (np.mean if op == "GlobalAveragePool" else np.max)(x, axis=axes, keepdims=True)
    (got,) = run_op(op, [x], symbolic=symbolic)
    assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_max_unpool_inverts_max_pool() -> None:
    x = np.random.default_rng(0).permutation(2 * 3 * 6 * 8).reshape(2, 3, 6, 8).astype("f")
    window = {"kernel_shape": (2, 2), "strides": (2, 2)}
    pooled, places = run_op("MaxPool", [x], window, num_outputs=2)
    for shape in ([], [np.array([2, 3, 6, 8])], [np.array([2, 3, 7, 9])]):
        (got,) = run_op("MaxUnpool", [pooled, places, *shape], window)
        kept = got[:, :, :6, :8]
        np.testing.assert_array_equal(kept, np.where(kept != 0, x, 0))
        np.testing.assert_array_equal(np.sort(kept[kept != 0]), np.sort(pooled.ravel()))
        assert np.count_nonzero(got) == pooled.size
