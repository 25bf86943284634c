"""What axis maps answer: what goes with dropped indices, what a cut means, and open dims."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from graphkiln.ir.axes.map import UNIT, AxisMap, Combine, Kind, Piece
from graphkiln.ir.axes.query import (
    AxisOf,
    axes_of,
    axes_of_kind,
    cut_along,
    dropped,
    factor_indices,
    positions,
    reduced_axes,
)
from graphkiln.ir.axes.text import map_text
from graphkiln.ir.dims import Dim, sym
from graphkiln.ir.graph import Graph
from graphkiln.ir.infer import infer_types
from graphkiln.ir.interpreter import run_node
from graphkiln.ir.ops.reduce import REDUCTIONS
from graphkiln.ir.types import tensor

N, C = sym("N"), sym("C")
Shape = tuple[Dim, ...]


def map_of(
    op: str, *shapes: Shape | None, domain: str = "", outputs: int = 1, **attrs: Any
) -> AxisMap:
    """The map of an op on float32 inputs of these shapes."""
    graph = Graph()
    values = [None if s is None else graph.add_input("x", tensor("float32", *s)) for s in shapes]
    node = graph.add_node(op, values, attrs, domain=domain, outputs=outputs)
    graph.set_outputs(list(node.values))
    infer_types(graph)
    found = axes_of(graph, node)
    assert found is not None
    return found


@pytest.mark.parametrize("op", REDUCTIONS)
@pytest.mark.parametrize("listed", [None, [], [1], [-1, 0], [2, 0, -2]])
@pytest.mark.parametrize("noop", [0, 1])
def test_reduced_axes_are_those_of_the_map(op: str, listed: list[int] | None, noop: int) -> None:
    """They are asked for often, and found without making the map."""
    graph = Graph()
    inputs = [graph.add_input("x", tensor("float32", N, C, 4))]
    if listed is not None:
        inputs.append(graph.add_constant(np.array(listed, np.int64)))
    node = graph.add_node(op, inputs, {"noop_with_empty_axes": noop})
    graph.set_outputs([node.out()])
    infer_types(graph)
    axes = axes_of(graph, node)
    assert axes is not None
    assert reduced_axes(graph, node) == axes_of_kind(axes, Kind.REDUCED)


def test_axes_that_only_the_run_knows_are_unknown() -> None:
    graph = Graph()
    inputs = [
        graph.add_input("x", tensor("float32", N, 4)),
        graph.add_input("axes", tensor("int64", 1)),
    ]
    node = graph.add_node("ReduceSum", inputs)
    graph.set_outputs([node.out()])
    infer_types(graph)
    assert reduced_axes(graph, node) is None and axes_of(graph, node) is None


def operand(tensor: int, axis: int) -> AxisOf:
    return AxisOf(tensor, axis)


def result(axis: int, tensor: int = 0) -> AxisOf:
    return AxisOf(tensor, axis, is_operand=False)


SLICE = map_of("Slice", (6,), domain="kiln", starts=(0,), steps=(1,), shape=(4,))


# ---- text ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "axes, text",
    [
        (map_of("MatMul", (N, 4), (4, 3)), "[a, c] [c, b] -> [a, b]; c reduced by sum"),
        (
            map_of("Conv", (2, 4, 8), (6, 2, 3), (6,), group=2, pads=(1, 1), strides=(2,)),
            "[b, (a, c), e@-1*2~3] [(a, d), c, f] [(a, d)] -> [b, (a, d), e]; c reduced by sum; "
            "e windowed; f opaque",
        ),
        (map_of("Concat", (2, 3), (2, 4), axis=1), "[a, c] [a, d] -> [a, c | d@3]"),
        (SLICE, "[a | b@4] -> [a]"),
        (map_of("Add", (N, 3), (3,)), "[a, b] [b] -> [a, b]"),
        (map_of("Softmax", (2, 3)), "[a, b] -> [a, b]; b normalized"),
        (map_of("ReduceL2", (2, 3), keepdims=1), "[a, b] -> [1, 1]; a reduced; b reduced"),
        (
            map_of("Reshape", (6, 4), domain="kiln", shape=(2, 12)),
            "[(a, b), c] -> [a, (b, c)]",
        ),
        (map_of("MaxPool", (1, 2, 4), kernel_shape=(1,), outputs=2), "[a, b, c] -> [a, b, c] ?"),
    ],
    ids=lambda v: v if isinstance(v, str) else "",
)
def test_maps_as_text(axes: AxisMap, text: str) -> None:
    assert map_text(axes) == text


# ---- dropping ------------------------------------------------------------------------------------


def test_filters_take_biases_and_channels_of_the_result_along() -> None:
    conv = map_of("Conv", (2, 4, 5, 5), (6, 4, 3, 3), (6,))
    assert dropped(conv, operand(1, 0), [1, 4]) == {
        operand(1, 0): (1, 4), operand(2, 0): (1, 4), result(1): (1, 4),
    }  # fmt: skip


def test_channels_of_groups_go_from_every_group() -> None:
    conv = map_of("Conv", (2, 4, 5, 5), (6, 2, 3, 3), group=2)
    assert dropped(conv, operand(1, 1), [1]) == {operand(1, 1): (1,), operand(0, 1): (1, 3)}
    assert dropped(conv, operand(0, 1), [1, 3]) == dropped(conv, operand(1, 1), [1])
    assert dropped(conv, operand(0, 1), [1]) is None
    # A whole group: its channels, its filters, and what they make.
    assert dropped(conv, operand(0, 1), [2, 3]) == {
        operand(0, 1): (2, 3), operand(1, 0): (3, 4, 5), result(1): (3, 4, 5),
    }  # fmt: skip
    assert conv.counts == (("group", (0,)),)


def test_images_and_windows_lose_nothing() -> None:
    conv = map_of("Conv", (2, 4, 5, 5), (6, 4, 3, 3))
    assert dropped(conv, operand(0, 2), [0]) is None
    assert dropped(conv, operand(1, 2), [0]) is None
    strided = map_of("Conv", (2, 4, 5, 5), (6, 4, 1, 1), strides=(2, 2))
    assert dropped(strided, result(2), [0]) is None


def test_joined_channels_go_from_the_operand_that_has_them() -> None:
    concat = map_of("Concat", (2, 3), (2, 4), axis=1)
    assert dropped(concat, result(1), [2, 3, 5]) == {
        result(1): (2, 3, 5), operand(0, 1): (2,), operand(1, 1): (0, 2),
    }  # fmt: skip
    split = map_of("Split", (2, 6), axis=1, outputs=2)
    assert dropped(split, operand(0, 1), [1, 4]) == {
        operand(0, 1): (1, 4), result(1, 0): (1,), result(1, 1): (1,),
    }  # fmt: skip


def test_flattened_channels_are_runs_of_features() -> None:
    flatten = map_of("Flatten", (2, 3, 2, 2), axis=1)
    assert dropped(flatten, operand(0, 1), [1]) == {operand(0, 1): (1,), result(1): (4, 5, 6, 7)}
    assert dropped(flatten, result(1), [4, 5, 6, 7]) == dropped(flatten, operand(0, 1), [1])
    assert dropped(flatten, result(1), [4, 5]) is None


def test_blocks_keep_their_size() -> None:
    space = map_of("DepthToSpace", (1, 8, 3, 3), blocksize=2)
    assert map_text(space) == (
        "[a, (e, f, b), c, d] -> [a, b, (c, e), (d, f)]; e fixed, mapped; f fixed, mapped"
    )
    assert dropped(space, operand(0, 1), [0, 1]) is None
    assert dropped(space, operand(0, 1), [0, 2, 4, 6]) == {
        operand(0, 1): (0, 2, 4, 6), result(1): (0,),
    }  # fmt: skip


def test_hidden_elements_of_a_layer_go_from_every_gate() -> None:
    lstm = map_of("LSTM", (5, 2, 3), (1, 8, 3), (1, 8, 2), (1, 16), outputs=3, hidden_size=2)
    assert dropped(lstm, result(3), [1]) == {
        operand(1, 1): (1, 3, 5, 7), operand(2, 1): (1, 3, 5, 7), operand(2, 2): (1,),
        operand(3, 1): (1, 3, 5, 7, 9, 11, 13, 15),
        result(3): (1,), result(2, 1): (1,), result(2, 2): (1,),
    }  # fmt: skip


def test_a_pruned_layer_computes_what_is_left_of_its_result() -> None:
    graph, random = Graph(), np.random.default_rng(0)
    arrays = [random.random(s).astype(np.float32) for s in ((2, 4, 5, 5), (6, 2, 3, 3), (6,))]
    values = [graph.add_input("x", tensor("float32", *a.shape)) for a in arrays]
    node = graph.add_node("Conv", values, {"group": 2})
    graph.set_outputs([node.out()])
    infer_types(graph)
    axes = axes_of(graph, node)
    lost = dropped(axes, operand(1, 0), [0, 3]) if axes else None
    assert lost is not None
    (whole,) = run_node(node, arrays)
    for place, gone in lost.items():
        if place.is_operand:
            arrays[place.tensor] = np.delete(arrays[place.tensor], gone, place.axis)
    (pruned,) = run_node(node, arrays)
    np.testing.assert_allclose(pruned, np.delete(whole, lost[result(1)], 1), rtol=1e-5)


def test_positions_and_indices_are_inverse() -> None:
    conv = map_of("Conv", (2, 6, 5, 5), (6, 2, 3, 3), group=3)
    assert conv.operands[0] is not None
    axis = conv.operands[0][1]
    (piece,) = axis
    for f in piece.factors:
        for i in range(int(conv.factors[f].size)):
            assert factor_indices(conv, axis, positions(conv, axis, f, [i])) == {f: {i}}
    assert factor_indices(conv, axis, [0, 3]) is None
    assert factor_indices(conv, axis, [17]) is None


# ---- cuts ----------------------------------------------------------------------------------------


def test_columns_stay_apart_and_rows_of_weights_are_partial_sums() -> None:
    gemm = map_of("Gemm", (N, 4), (4, 6), (6,))
    columns = cut_along(gemm, operand(1, 1))
    assert columns is not None and columns.combine is None
    assert set(columns.cut) == {operand(1, 1), operand(2, 0), result(1)}
    inner = cut_along(gemm, operand(1, 0))
    assert inner is not None and set(inner.cut) == {operand(0, 1), operand(1, 0)}
    assert (inner.partial, inner.combine, inner.once) == ((0,), Combine.SUM, frozenset({2}))


def test_heads_are_cut_with_their_groups() -> None:
    attention = map_of(
        "Attention", (2, 5, 24), (2, 7, 12), (2, 7, 12), q_num_heads=4, kv_num_heads=2
    )
    cut = cut_along(attention, operand(0, 2))
    assert cut is not None
    assert set(cut.cut) == {operand(0, 2), operand(1, 2), operand(2, 2), result(2)}
    assert cut_along(attention, operand(1, 1)) is None  # keys are normalized over


@pytest.mark.parametrize(
    "axes, at",
    [
        (map_of("Concat", (2, 3), (2, 4), axis=1), result(1)),
        (map_of("Softmax", (2, 3)), operand(0, 1)),
        (map_of("ReduceL2", (2, 3)), operand(0, 1)),
        (map_of("LSTM", (5, 2, 3), (1, 8, 3), (1, 8, 2)), operand(1, 1)),
        (map_of("Conv", (1, 4, 8), (2, 4, 3)), result(2)),
        (map_of("DepthToSpace", (1, 8, 3, 3), blocksize=2), operand(0, 1)),
        (SLICE, operand(0, 0)),
    ],
    ids=["concat", "softmax", "norm", "gates", "window", "blocks", "slice"],
)
def test_what_cannot_be_cut(axes: AxisMap, at: AxisOf) -> None:
    assert cut_along(axes, at) is None


def test_a_cut_runs_in_parts() -> None:
    graph, random = Graph(), np.random.default_rng(0)
    arrays = [random.random(s).astype(np.float32) for s in ((3, 4), (4, 6), (6,))]
    values = [graph.add_input("x", tensor("float32", *a.shape)) for a in arrays]
    node = graph.add_node("Gemm", values)
    graph.set_outputs([node.out()])
    infer_types(graph)
    axes = axes_of(graph, node)
    cut = cut_along(axes, operand(0, 1)) if axes else None
    assert cut is not None and cut.combine is Combine.SUM
    total = np.zeros((3, 6), np.float32)
    for part in range(2):
        inputs = list(arrays)
        for place in cut.cut:
            inputs[place.tensor] = np.split(inputs[place.tensor], 2, place.axis)[part]
        for i in cut.once if part else ():
            inputs[i] = np.zeros_like(inputs[i])
        total += run_node(node, inputs)[0]
    np.testing.assert_allclose(total, run_node(node, arrays)[0], rtol=1e-5)


# ---- open dims -----------------------------------------------------------------------------------


def test_open_dims_are_factors() -> None:
    matmul = map_of("MatMul", (N, C), (C, 3))
    assert [f.size for f in matmul.factors] == [N, 3, C]
    reshape = map_of("Reshape", (N, 12), domain="kiln", shape=(N, 3, 4))
    assert reshape.operands[0] == ((Piece((0,)),), (Piece((1, 2)),))
    assert [f.kind for f in reshape.factors] == [Kind.MAPPED] * 3
    merged = map_of("Reshape", (N, 2, C, 4), domain="kiln", shape=(2 * N, 4 * C))
    assert [f.size for f in merged.factors] == [N, 2, C, 4]


def test_a_dim_that_may_be_one_says_nothing() -> None:
    add = map_of("Add", (N, 3), (C, 3))
    assert add.operands[0] is not None and add.results[0] is not None
    kinds = {add.factors[p.factors[0]].kind for p in (*add.results[0][0], *add.operands[0][0])}
    assert kinds == {Kind.OPAQUE}
    assert add.operands[0][1] == add.results[0][1]


def test_ones_broadcast() -> None:
    add = map_of("Add", (N, 3), (1, 3))
    assert add.operands[1] == (UNIT, (Piece((1,)),))
