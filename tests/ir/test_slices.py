"""Symbolic slices against the text of ONNX."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from graphkiln.ir.dims import Dim, dim_max, evaluate, sym
from graphkiln.ir.slices import FAR, python_slice, slice_range

N, M = sym("N"), sym("M")
bounds = st.one_of(st.integers(-6, 6), st.sampled_from([2**63 - 1, -(2**63), FAR, -FAR]))
steps = st.integers(-3, 3).filter(bool)


def taken(start: Dim, end: Dim, step: int, size: Dim, **symbols: int) -> list[int]:
    """The indices that ``slice_range`` says a slice reads."""
    found = slice_range(start, end, step, size)
    assert found is not None
    first, length = (evaluate(d, symbols) for d in found)
    return [first + i * step for i in range(length)]


def meant(start: int, end: int, step: int, n: int) -> list[int]:
    """The indices that ONNX's Slice reads: bounds count from the end, and are clamped."""
    start, end = (b + n if b < 0 else b for b in (start, end))
    if step > 0:
        return list(range(min(max(start, 0), n), min(max(end, 0), n), step))
    return list(range(min(max(start, 0), n - 1), min(max(end, -1), n - 1), step))


@given(bounds, bounds, steps, st.integers(0, 7))
@example(-2, -9, -3, 1)  # in front of the axis: its first element
def test_slices_are_those_of_onnx(start, end, step, n):
    want = meant(start, end, step, n)
    assert list(range(n))[python_slice(start, end, step, n)] == want
    assert taken(start, end, step, n) == want
    assert taken(start, end, step, N, N=n) == want


@given(st.integers(-3, 3), st.integers(0, 3), steps, st.integers(0, 7))
def test_symbolic_bounds_on_their_own_axis(a, b, step, n):
    for start, end in ((N - b, FAR), (a, N - b), (N, a), (-N - 1, a)):
        if slice_range(start, end, step, N) is None:
            continue
        low, high = (evaluate(d, {"N": n}) for d in (start, end))
        assert taken(start, end, step, N, N=n) == meant(low, high, step, n)


def test_common_slices_have_plain_lengths():
    assert slice_range(0, FAR, 1, N) == (0, N)
    assert slice_range(1, FAR, 1, N) == (1, dim_max(0, N - 1))
    assert slice_range(0, -1, 1, N) == (0, dim_max(0, N - 1))
    assert slice_range(0, N - 1, 1, N) == (0, dim_max(0, N - 1))
    assert slice_range(0, N, 1, N + M) == (0, N)
    assert slice_range(M, M + N, 1, N + M) == (M, N)
    assert slice_range(-1, -FAR, -1, N) == (N - 1, N)
    assert slice_range(0, FAR, 2, N) == (0, (N + 1) // 2)


def test_what_the_symbols_leave_open_is_not_guessed():
    assert slice_range(N - 2, FAR, 1, 5) is None
    assert slice_range(0, N - M, 1, N) is None


def test_a_step_of_zero_is_an_error():
    with pytest.raises(ValueError, match="step"):
        slice_range(0, 1, 0, 4)
