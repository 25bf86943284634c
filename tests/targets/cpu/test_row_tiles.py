"""Rows of products cut into register tiles."""

from __future__ import annotations

import numpy as np
import pytest
from support.conv_kernels import FLOAT
from support.cpu_kernels import Kernel, run
from support.product_kernels import Packed, packed_kernel

from graphkiln.targets.cpu.features import features_of
from graphkiln.targets.cpu.row_tiles import RowTiles
from graphkiln.targets.cpu.tiling import rank_product_tiles
from graphkiln.targets.tir.builder import Builder
from graphkiln.targets.tir.cpu_loops import CpuLoops
from graphkiln.targets.tir.extents import index


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 13, 17, 23])
def test_every_remainder_of_rows(rows: int) -> None:
    spec = Packed(FLOAT, (), rows, 9, 30, open_dims=True)
    kernel = packed_kernel(spec, "")
    kernel.check(run(kernel, ""))


@pytest.mark.parametrize("rows,limit,others", [(1, 9, 1), (100, 9, 3), (300, 6, 64), (17, 14, 1)])
def test_tiles_are_near_equal_and_groups_enough(rows: int, limit: int, others: int) -> None:
    tiles = RowTiles(Builder(CpuLoops(2)), rows, limit, others)
    assert tiles.tiles == -(-rows // limit)
    assert tiles.groups == min(tiles.tiles, -(-32 // others))
    sizes: list[int] = []
    tiles.each(index(0), lambda _row, size: sizes.append(size))
    assert max(sizes) <= limit and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("rows", [49, 128, 197, 1500, None])
def test_products_take_tiles_that_the_cache_holds(rows: int | None) -> None:
    for columns in (64, 256, 384, 768, 3072):
        tile = rank_product_tiles(features_of("znver4"), rows, columns)[0]
        assert tile.rows <= 9 and tile.rows * tile.vectors >= 24


@pytest.mark.parametrize("rows,inner,columns", [(3, 4, 0), (0, 4, 5), (3, 0, 5)])
def test_products_without_elements(rows: int, inner: int, columns: int) -> None:
    k = Kernel()
    x = k.input(np.ones((rows, inner), np.float32))
    k.finish([k.node("MatMul", [x, k.input(np.ones((inner, columns), np.float32))])])
    k.want = [np.zeros((rows, columns), np.float32)]
    k.check(run(k, ""))
