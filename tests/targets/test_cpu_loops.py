"""Loops of unknown extent: one thread for little work, all threads for much."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tvm_ffi
from oputil import build
from tvm import tirx

from graphkiln.ir.dims import sym
from graphkiln.targets.tir.builder import Builder
from graphkiln.targets.tir.cpu_loops import PARALLEL_THRESHOLD, CpuLoops
from graphkiln.targets.tir.scratch import slice_of


def doubling(cost: int, columns: int = 8, sequential_last: bool = True) -> Any:
    """``y = 2 * x`` for unknown rows of ``columns`` pieces, at a stated cost of a piece."""
    b = Builder(CpuLoops(2))
    shape = (b.dim(sym("n")), columns)
    x, y = b.argument("x", shape, "float32"), b.argument("y", shape, "float32")

    def piece(at: tuple[Any, ...]) -> None:
        y.store(at, x[at] * tirx.const(2, "float32"))

    b.nest(shape, piece, cost, sequential_last)
    return b.finish("doubling")


@pytest.mark.parametrize("rows", [0, 1, 3, 5000])
@pytest.mark.parametrize("cost", [8, PARALLEL_THRESHOLD])
def test_every_row_is_computed_once(rows: int, cost: int) -> None:
    x = np.random.default_rng(0).standard_normal((rows, 8)).astype(np.float32)
    y = np.full_like(x, 77)
    build(doubling(cost))["doubling"](tvm_ffi.from_dlpack(x), tvm_ffi.from_dlpack(y), rows)
    np.testing.assert_array_equal(y, 2 * x)


def test_cheap_rows_have_a_version_for_one_thread() -> None:
    cheap, dear = (str(doubling(cost)) for cost in (8, PARALLEL_THRESHOLD))
    wide = str(doubling(PARALLEL_THRESHOLD // 64, columns=64))
    assert [text.count("T.parallel(n") for text in (cheap, dear, wide)] == [1, 1, 1]
    assert "T.grid(n" in cheap and "T.grid(n" not in dear and "T.grid(n" not in wide


def test_bodies_with_loops_of_their_own_are_compiled_twice_only_for_very_little_work() -> None:
    cost = PARALLEL_THRESHOLD // 64
    for own_loops, versions in ((True, 0), (False, 1)):
        assert str(doubling(cost, 8, own_loops)).count("T.grid(n") == versions
    assert "T.grid(n" in str(doubling(cost // 16, 8))


@pytest.mark.parametrize("shape", [(8,), (2, 4), (1, 8, 1)])
def test_workspace_is_its_own_under_another_shape(shape: tuple[int, ...]) -> None:
    """Later workspace of the same size must not take the place of what a view still reads."""
    b = Builder(CpuLoops(2))
    x, y = b.argument("x", (8,), "float32"), b.argument("y", (8,), "float32")
    doubled = b.workspace((4, 2), "float32")
    b.nest((4, 2), lambda at: doubled.store(at, x[at[0] * 2 + at[1]] + x[at[0] * 2 + at[1]]))
    seen, sums = b.view(doubled, shape), b.workspace((8,), "float32")
    with b.loop(2) as half:
        total = b.local((1,), "float32")
        total.store((0,), tirx.const(0, "float32"))
        b.nest(shape, lambda at: total.store((0,), total[0] + seen[at]))
        with b.loop(4) as i:
            sums.store((half * 4 + i,), total[0])
    with b.loop(8) as i:
        y.store((i,), sums[i])
    given, got = np.arange(8, dtype=np.float32), np.zeros(8, np.float32)
    build(b.finish("sums"))["sums"](tvm_ffi.from_dlpack(given), tvm_ffi.from_dlpack(got))
    np.testing.assert_array_equal(got, 56)


def test_part_of_a_workspace_under_another_shape() -> None:
    b = Builder(CpuLoops(2))
    x, y = b.argument("x", (2, 6), "float32"), b.argument("y", (2, 3, 2), "float32")
    whole = b.workspace((2, 2, 3), "float32")
    with b.loop(2) as row:
        part = slice_of(whole, [row])
        b.nest((2, 3), lambda at: part.store(at, x[row, at[0] * 3 + at[1]]))
        seen = b.view(part, (3, 2))
        b.nest((3, 2), lambda at: y.store((row, *at), seen[at]))
    given, got = np.arange(12, dtype=np.float32).reshape(2, 6), np.zeros((2, 3, 2), np.float32)
    build(b.finish("parts"))["parts"](tvm_ffi.from_dlpack(given), tvm_ffi.from_dlpack(got))
    np.testing.assert_array_equal(got, given.reshape(2, 3, 2))
