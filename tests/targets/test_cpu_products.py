"""Matrix products of the CPU target against NumPy: packed weights and two run-time operands."""

from __future__ import annotations

import numpy as np
import pytest
from cpukernels import cpus, run_on
from hypothesis import given, settings
from hypothesis import strategies as st
from oputil import Array, assert_close

from graphkiln.ir.dims import sym
from graphkiln.ir.graph import Graph
from graphkiln.ir.infer import infer_types
from graphkiln.ir.packing import pack_matmul_weight
from graphkiln.ir.types import array_type, tensor
from graphkiln.targets.cpu.features import features_of
from graphkiln.targets.cpu.row_tiles import RowTiles
from graphkiln.targets.cpu.tiling import choose_tile, product_cycles
from graphkiln.targets.tir.builder import Builder
from graphkiln.targets.tir.cpu_loops import CpuLoops


def random(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def packed(cpu: str, x: Array, w: Array, bias: Array | None, symbolic: bool) -> Array:
    """``relu(x @ w + bias)`` with packed weights."""
    lanes = features_of(cpu).lanes
    rows = None if symbolic else int(np.prod(x.shape[:-1]))
    tile = choose_tile(features_of(cpu), rows, -(-w.shape[1] // lanes), product_cycles)
    weights = pack_matmul_weight(w, tile.vectors * lanes, 1)
    graph = Graph()
    lead = tuple(sym(f"n{i}") for i in range(x.ndim - 1)) if symbolic else x.shape[:-1]
    inputs = [graph.add_input("x", tensor("float32", *lead, x.shape[-1]))]
    feeds = [x, weights] if bias is None else [x, weights, bias]
    inputs += [graph.add_input(f"w{i}", array_type(a)) for i, a in enumerate(feeds[1:])]
    node = graph.add_node("MatMulPacked", inputs, {"columns": w.shape[1]}, domain="kiln")
    graph.set_outputs([graph.add_node("Relu", [node.out()]).out()])
    infer_types(graph)
    return run_on(cpu, graph, feeds)[0]


@pytest.mark.parametrize("cpu", cpus())
@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize(
    "shape,columns",
    [((1, 5), 3), ((2, 7, 40), 100), ((31, 16), 48), ((64, 33), 1000), ((300, 8), 20)],
)
def test_packed_weights(cpu: str, symbolic: bool, shape: tuple[int, ...], columns: int) -> None:
    x, w, bias = random(*shape), random(shape[-1], columns, seed=1), random(columns, seed=2)
    got = packed(cpu, x, w, bias, symbolic)
    assert_close(got, np.maximum(x @ w + bias, 0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rows", [1, 2, 5, 8, 13, 17, 23])
def test_every_remainder_of_rows(rows: int) -> None:
    x, w = random(rows, 9), random(9, 30, seed=1)
    for symbolic in (False, True):
        assert_close(
            packed("native", x, w, None, symbolic), np.maximum(x @ w, 0), rtol=1e-4, atol=1e-4
        )


@pytest.mark.parametrize("cpu", cpus())
@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize("rows", [1, 37])
def test_weights_of_8_bits_are_converted(cpu: str, symbolic: bool, rows: int) -> None:
    w = np.random.default_rng(3).integers(-128, 128, (24, 70), np.int8)
    x = random(rows, 24)
    got = packed(cpu, x, w, None, symbolic)
    assert_close(got, np.maximum(x @ w.astype(np.float32), 0), rtol=1e-4, atol=1e-3)


@given(rows=st.integers(1, 400), limit=st.integers(1, 14), others=st.integers(1, 40))
@settings(max_examples=60, deadline=None)
def test_row_tiles_cover_every_row_once(rows: int, limit: int, others: int) -> None:
    tiles = RowTiles(Builder(CpuLoops()), rows, limit, others)
    assert tiles.tiles is not None and 1 <= tiles.groups <= tiles.tiles
    sizes: list[int] = []
    tiles.each(0, lambda _row, size: sizes.append(size))  # type: ignore[arg-type]
    assert max(sizes) <= limit and max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("cpu", cpus())
@pytest.mark.parametrize("symbolic", [False, True])
@pytest.mark.parametrize(
    "left,right",
    [((3, 5), (5, 7)), ((2, 3, 17, 9), (2, 3, 9, 33)), ((4, 20, 8), (8, 50)), ((2, 1, 6), (6, 1))],
)
def test_two_run_time_operands(
    cpu: str, symbolic: bool, left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    a, b = random(*left), random(*right, seed=1)
    graph = Graph()
    shapes: list[tuple[object, ...]] = [left, right]
    if symbolic:
        batch = [(*(sym(f"b{i}") for i in range(len(s) - 2)),) for s in shapes]
        shapes = [(*batch[0], sym("m"), sym("k")), (*batch[1], sym("k"), sym("n"))]
    inputs = [graph.add_input(f"x{i}", tensor("float32", *s)) for i, s in enumerate(shapes)]
    node = graph.add_node("MatMul", inputs)
    graph.set_outputs([node.out()])
    infer_types(graph)
    assert_close(run_on(cpu, graph, [a, b])[0], a @ b, rtol=1e-4, atol=1e-4)
