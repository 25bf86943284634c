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
from graphkiln.targets.tir.cpu_loops import OPEN_COST, CpuLoops


def doubling(cost: int) -> Any:
    """``y = 2 * x`` for a matrix of unknown rows, at a stated cost of a row."""
    b = Builder(CpuLoops(2))
    rows = b.dim(sym("n"))
    x, y = b.argument("x", (rows, 8), "float32"), b.argument("y", (rows, 8), "float32")

    def row(at: tuple[Any, ...]) -> None:
        with b.loop(8) as j:
            y.store((*at, j), x[(*at, j)] * tirx.const(2, "float32"))

    b.nest((rows,), row, cost, sequential_last=True)
    return b.finish("doubling")


@pytest.mark.parametrize("rows", [0, 1, 3, 5000])
@pytest.mark.parametrize("cost", [8, OPEN_COST + 1])
def test_every_row_is_computed_once(rows: int, cost: int) -> None:
    x = np.random.default_rng(0).standard_normal((rows, 8)).astype(np.float32)
    y = np.full_like(x, 77)
    build(doubling(cost))["doubling"](tvm_ffi.from_dlpack(x), tvm_ffi.from_dlpack(y), rows)
    np.testing.assert_array_equal(y, 2 * x)


def test_cheap_rows_have_a_version_for_one_thread() -> None:
    cheap, dear = (str(doubling(cost)) for cost in (8, OPEN_COST + 1))
    assert cheap.count("T.parallel(n)") == dear.count("T.parallel(n)") == 1
    assert "T.grid(n" in cheap and "T.grid(n" not in dear
