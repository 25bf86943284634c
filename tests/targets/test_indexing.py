"""Gathers, scatters, orders and generators, compiled, against the reference evaluation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from modes import Mode, check, ints, ramp
from oputil import Array, assert_close, run_graph, run_op
from support.graph_text import graph_of

from graphkiln.ir.interpreter import evaluate

STATIC: list[Mode] = [(False, ())]
OPEN: list[Mode] = [(False, ()), ("distinct", ())]
MIXED: list[Mode] = [("distinct", ()), (False, (1,))]


def noise(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def places(high: int, *shape: int, seed: int = 0) -> Array:
    """Indices of an axis of ``high`` elements, negative ones among them."""
    return np.random.default_rng(seed).integers(-high, high, shape)


# ---- gathers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_gather(axis: int) -> None:
    x = ramp(4, 5, 6)
    check("Gather", [x, places(x.shape[axis], 2, 3)], {"axis": axis})
    check("Gather", [x, np.int32(-1)], {"axis": axis}, modes=MIXED)


@pytest.mark.parametrize("axis", [0, -1])
def test_gather_elements(axis: int) -> None:
    x = ramp(4, 50, 3)
    shape = [2, 7, 3]
    shape[axis] = 6
    check("GatherElements", [x, places(x.shape[axis], *shape)], {"axis": axis}, modes=OPEN)


def test_gather_nd() -> None:
    x = ramp(2, 3, 4)
    check("GatherND", [x, places(2, 5, 2)], modes=OPEN)
    check("GatherND", [x, places(2, 2, 5, 1)], {"batch_dims": 1}, modes=OPEN)
    check("GatherND", [x, places(3, 2, 3, 1)], {"batch_dims": 2}, modes=STATIC)
    check("GatherND", [x, places(2, 4, 3)], domain="com.microsoft", modes=STATIC)


def test_many_constant_indices() -> None:
    at = places(50, 40)
    check("Gather", [ramp(3, 50), at], {"axis": 1}, modes=[(False, (1,))])


def test_constant_indices_by_constant_indices() -> None:
    """A chain of selects for each, not one inside each comparison of the other."""
    graph = graph_of("""graph main(%x: float32[12,17]) -> (y) {
      %lengths = constant int64[17] [9, 3, 8, 9, 4, 9, 7, 7, 1, 5, 7, 6, 3, 12, 9, 9, 10]
      %r = ReverseSequence(%x, %lengths) {batch_axis=1, time_axis=0}
      %at = constant int64[3,2] [-8, -3, -11, 14, 4, 15]
      %y = GatherND(%r, %at)
      return %y
    }""")
    x = noise(12, 17)
    (want,) = evaluate(graph, {"x": x})
    np.testing.assert_array_equal(run_graph(graph, [x])[0], want)


def test_indices_out_of_range_read_the_nearest_element() -> None:
    (got,) = run_op("Gather", [ramp(3), ints(-9, 9)], {})
    assert got.tolist() == [0, 2]


# ---- scatters ------------------------------------------------------------------------------------

REDUCTIONS = ["none", "add", "mul", "max", "min"]


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_scatter_elements(reduction: str) -> None:
    x, attrs = noise(5, 4, 3), {"reduction": reduction}
    many = reduction != "none"
    for axis in (0, 1, -1):
        shape = [4, 3, 2]
        shape[axis] = 9 if many else 2
        size = x.shape[axis]
        at = places(size, *shape) if many else np.argsort(noise(*shape), axis) + size - 2
        check(
            "ScatterElements", [x, at, noise(*shape, seed=1)], {**attrs, "axis": axis}, modes=OPEN
        )


@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_scatter_nd(reduction: str) -> None:
    attrs = {"reduction": reduction}
    for depth in (1, 2, 3):
        x = noise(4, 5, 6)
        at = places(4, 7, depth)
        updates = noise(7, *x.shape[depth:], seed=depth)
        check("ScatterND", [x, at, updates], attrs, modes=OPEN if depth == 2 else STATIC)


def test_scatter_of_long_slices_and_of_flags() -> None:
    check("ScatterND", [noise(3, 700), ints([1], [1], [-3]), noise(3, 700, seed=1)],
          {"reduction": "add"}, modes=OPEN)  # fmt: skip
    flags = np.array([True, False, True])
    check("ScatterElements", [flags, ints(0, 1), ~flags[:2]], {"reduction": "max"}, modes=STATIC)


def test_updates_out_of_range_are_left_out() -> None:
    (got,) = run_op("ScatterElements", [ramp(3), ints(7, 1), ramp(2) + 5], {})
    assert got.tolist() == [0, 6, 2]
    (got,) = run_op("ScatterND", [ramp(3), ints([-4], [0]), ramp(2) + 5], {})
    assert got.tolist() == [6, 1, 2]


@pytest.mark.parametrize("mode", ["linear", "circular"])
def test_tensor_scatter(mode: str) -> None:
    cache, new = noise(2, 3, 6, 4), noise(2, 3, 2, 4, seed=1)
    check("TensorScatter", [cache, new, ints(4, 1)], {"mode": mode}, modes=OPEN)
    check("TensorScatter", [cache, new], {"mode": mode}, modes=STATIC)
    if mode == "circular":
        check("TensorScatter", [cache, new, ints(5, 9)], {"mode": mode}, modes=STATIC)


# ---- OneHot, data-dependent sizes ----------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["int64", "int32", "uint8", "float32"])
def test_one_hot(dtype: str) -> None:
    at = np.array([[0, 2, 3], [1, 5, 4]]).astype(dtype)
    if dtype != "uint8":
        at[0, 0] = -1
    depth = np.array(4, "float32" if dtype == "float32" else "int64")
    check("OneHot", [at, depth, np.array([2, 7], np.int32)], {"axis": 1})


def test_non_zero() -> None:
    for x in (np.round(noise(3, 4)), np.zeros((2, 3), np.int32), noise(2, 3, 2) > 0):
        check("NonZero", [x], modes=OPEN)


def test_compress() -> None:
    x, picks = ramp(3, 4), np.array([True, False, True])
    for attrs in ({"axis": 0}, {"axis": -1}, {}):
        check("Compress", [x, picks], attrs, modes=MIXED)


# ---- TopK ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("largest", [0, 1])
@pytest.mark.parametrize("k", [1, 5, 17, 40])
def test_top_k(k: int, largest: int) -> None:
    x = np.round(noise(3, 40, seed=k) * 3)
    x[1, 7] = np.nan
    for axis, data in ((-1, x), (0, np.ascontiguousarray(x.T))):
        attrs = {"axis": axis, "largest": largest}
        check("TopK", [data, ints(k)], attrs, num_outputs=2, modes=MIXED)


@settings(max_examples=6)
@given(st.integers(1, 70), st.integers(0, 2**16), st.sampled_from(["int8", "uint64", "float16"]))
def test_top_k_of_ties(n: int, seed: int, dtype: str) -> None:
    x = np.random.default_rng(seed).integers(0, 6, n).astype(dtype)
    k = ints(min(n, seed % n + 1))
    check("TopK", [x, k], {"sorted": 0}, num_outputs=2, modes=MIXED)


def test_top_k_of_nothing() -> None:
    check("TopK", [ramp(2, 5), ints(0)], {}, num_outputs=2)


# ---- CumSum, CumProd -----------------------------------------------------------------------------


@pytest.mark.parametrize("op", ["CumSum", "CumProd"])
@pytest.mark.parametrize("reverse", [0, 1])
@pytest.mark.parametrize("exclusive", [0, 1])
def test_cumulative(op: str, reverse: int, exclusive: int) -> None:
    x = np.round(noise(2, 3, 4) * 2)
    attrs = {"reverse": reverse, "exclusive": exclusive}
    axis = np.array(reverse - 2 * exclusive, np.int64)
    check(op, [x, axis], attrs, modes=MIXED)


@pytest.mark.parametrize("exclusive", [0, 1])
def test_cumulative_along_another_axis_than_the_last(exclusive: int) -> None:
    attrs = {"reverse": 1, "exclusive": exclusive}
    for axis in (0, 1):
        x = np.round(noise(3, 5, 32) * 2)
        check("CumSum", [x, np.array(axis)], attrs, modes=[(False, (1,))])


def test_cumulative_sum_of_integers_wraps_around() -> None:
    x = np.full(4, 2**30, np.int32)
    check("CumSum", [x, np.array(0, np.int32)], {}, modes=STATIC)


# ---- generators ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "numbers"),
    [("int64", (3, 10, 3)), ("int32", (10, 3, -2)), ("int16", (5, 5, 1)), ("int64", (4, 1, 2)),
     ("float32", (0, 1, 0.1)), ("float64", (1, -1, -0.3)), ("float16", (0, 5, 1.5))],
)  # fmt: skip
def test_range(dtype: str, numbers: tuple[float, ...]) -> None:
    inputs = [np.array(v, dtype) for v in numbers]
    check("Range", inputs, modes=[(False, ()), (False, (0, 1, 2))])
    check("Range", inputs, domain="com.microsoft", modes=STATIC)


@pytest.mark.parametrize("op", ["HannWindow", "HammingWindow", "BlackmanWindow"])
def test_windows(op: str) -> None:
    attrs = {"periodic": 0, "output_datatype": 11}
    size = np.array(9, np.int32)
    check(op, [size], attrs, modes=[(False, ()), (False, (0,))])


def test_eye_like() -> None:
    for k in (-1, 0, 2):
        check("EyeLike", [ramp(3, 4)], {"k": k, "dtype": 9}, modes=OPEN)


def test_constant_of_shape_at_run_time() -> None:
    value = np.array([2.5], np.float16)
    check("ConstantOfShape", [ints(2, 0, 3)], {"value": value}, modes=STATIC)
    (got,) = run_op("ConstantOfShape", [ints(2, 3)], {"value": value}, const_inputs=[0])
    assert_close(got, np.full((2, 3), 2.5, np.float16))


@pytest.mark.parametrize("symbolic", [False, "distinct"])
@pytest.mark.parametrize("axis", [0, 1, None])
def test_compress_ignores_what_a_condition_has_beyond_the_axis(axis, symbolic):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    extent = x.size if axis is None else x.shape[axis]
    attrs = {} if axis is None else {"axis": axis}
    for picks in ([1, 0, 1, 1, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0, 1, 1], [1], [0, 1]):
        mask = np.array(picks, bool)
        want = np.compress(mask[:extent], x, axis=axis)
        for known in ((), (1,)):
            (got,) = run_op("Compress", [x, mask], attrs, symbolic=symbolic, const_inputs=known)
            assert_close(got, want)
