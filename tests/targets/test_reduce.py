"""Reductions against NumPy, and ONNX's own cases."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oputil import assert_close, run_case, run_op, sampled_cases

OPS = (
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare", "ArgMax", "ArgMin", "Hardmax",
)  # fmt: skip
NUMPY = {
    "ReduceMean": np.mean,
    "ReduceMax": np.max,
    "ReduceProd": np.prod,
}


def normal(*shape: int, dtype: str = "float32") -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


@pytest.mark.parametrize("case", sampled_cases(*OPS))
def test_onnx_case(case):
    run_case(case)


@pytest.mark.parametrize("op", NUMPY)
@pytest.mark.parametrize("axes", [(0,), (1,), (2,), (0, 2), (1, 2), (0, 1, 2)])
@pytest.mark.parametrize("symbolic", [False, True])
def test_matches_numpy(op, axes, symbolic):
    x = normal(3, 35, 67) * 0.1 + 1.0
    want = NUMPY[op](x.astype("float64"), axis=axes).astype("float32")
    got = run_op(op, [x, np.array(axes)], {"keepdims": 0}, symbolic=symbolic, const_inputs={1})
    assert_close(got[0], want, rtol=2e-5)


@given(
    st.lists(st.sampled_from([1, 2, 3, 7, 16, 33]), min_size=1, max_size=4),
    st.integers(0, 15),
    st.booleans(),
)
def test_any_axes(shape, mask, keepdims):
    axes = tuple(i for i in range(len(shape)) if mask >> i & 1) or (0,)
    x = normal(*shape)
    got = run_op("ReduceSum", [x, np.array(axes)], {"keepdims": int(keepdims)}, const_inputs={1})
    want = np.sum(x.astype("float64"), axis=axes, keepdims=keepdims).astype("float32")
    assert_close(got[0], want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("keepdims", [0, 1])
@pytest.mark.parametrize("axes", [[1], [-1, 0], [0, 1, 2]])
def test_axes_at_run_time(axes, keepdims):
    x = normal(2, 5, 3)
    got = run_op("ReduceMean", [x, np.array(axes)], {"keepdims": keepdims}, symbolic=keepdims == 1)
    assert_close(got[0], np.mean(x, axis=tuple(axes), keepdims=bool(keepdims)), rtol=1e-5)


@pytest.mark.parametrize("shape, axis", [((2, 1 << 18), 1), ((1 << 17, 16), 0), ((1 << 17, 3), 0)])
@pytest.mark.parametrize("symbolic", [False, True])
def test_many_terms_keep_their_precision(shape, axis, symbolic):
    x = np.full(shape, 0.1, np.float32)
    axes = np.array([axis])
    got = run_op("ReduceSum", [x, axes], {"keepdims": 0}, symbolic=symbolic, const_inputs={1})
    assert_close(got[0], x.astype("float64").sum(axis=axis).astype("float32"), rtol=1e-5)


@pytest.mark.parametrize("axis", [0, 1])
def test_nan_wins(axis):
    x = normal(20, 40)
    x[3, 5] = np.nan
    for op, reference in (("ReduceMax", np.max), ("ReduceMin", np.min)):
        got = run_op(op, [x, np.array([axis])], {"keepdims": 0}, const_inputs={1})
        assert_close(got[0], reference(x, axis=axis))
    assert_close(run_op("ArgMax", [x], {"axis": axis, "keepdims": 0})[0], np.argmax(x, axis))


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float64"])
def test_other_floats(dtype):
    x = normal(6, 50).astype(dtype)
    got = run_op("ReduceL2", [x, np.array([1])], {"keepdims": 0}, const_inputs={1})
    want = np.sqrt(np.sum(x.astype("float64") ** 2, axis=1)).astype(dtype)
    assert_close(got[0], want, rtol=1e-2 if np.dtype(dtype).itemsize == 2 else 1e-12)


@pytest.mark.parametrize("dtype", ["int32", "uint32", "int64", "uint64"])
def test_integers_wrap(dtype):
    x = np.array([[2**31 - 1, 7], [2**31 - 1, 5]]).astype(dtype)
    got = run_op("ReduceSum", [x, np.array([0])], {"keepdims": 0}, const_inputs={1})
    assert_close(got[0], np.sum(x, axis=0, dtype=dtype))


def test_mean_of_integers_truncates():
    x = np.array([[-3, -4], [3, 4]], np.int32)
    got = run_op("ReduceMean", [x, np.array([1])], {"keepdims": 0}, const_inputs={1})
    assert_close(got[0], np.array([-3, 3], np.int32))


@pytest.mark.parametrize("op", ["ReduceSumSquare", "ReduceL1", "ReduceLogSumExp", "ReduceMean"])
def test_no_axes_is_pointwise(op):
    x = normal(3, 4)
    want = {"ReduceSumSquare": x * x, "ReduceL1": np.abs(x)}.get(op, x)
    assert_close(run_op(op, [x], {"noop_with_empty_axes": 1})[0], want)


def test_log_sum_exp_does_not_overflow():
    x = np.array([[1000.0, 1000.0], [-1000.0, -1000.0], [-np.inf, -np.inf]], np.float32)
    got = run_op("ReduceLogSumExp", [x, np.array([1])], {"keepdims": 0}, const_inputs={1})
    assert_close(got[0], np.array([1000.6931, -999.30685, -np.inf], np.float32))


@pytest.mark.parametrize("last", [0, 1])
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("symbolic", [False, True])
def test_arg_of_ties(axis, last, symbolic):
    x = np.random.default_rng(1).integers(0, 4, (5, 40, 33)).astype("float32")
    attrs = {"axis": axis, "select_last_index": last, "keepdims": 0}
    want = x.shape[axis] - 1 - np.argmin(np.flip(x, axis), axis) if last else np.argmin(x, axis)
    assert_close(run_op("ArgMin", [x], attrs, symbolic=symbolic)[0], want)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64"])
def test_arg_of_integers(dtype):
    x = np.random.default_rng(2).integers(-100, 100, (4, 50)).astype(dtype)
    assert_close(run_op("ArgMax", [x], {"axis": 1, "keepdims": 0})[0], np.argmax(x, axis=1))
