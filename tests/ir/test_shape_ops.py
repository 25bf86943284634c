"""Symbolic shapes and values of ops that compute with shapes and move elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from graphkiln.ir.dims import Dim, dim_max, evaluate, sym
from graphkiln.ir.graph import Graph, Node, Value
from graphkiln.ir.infer import infer_types
from graphkiln.ir.interpreter import evaluate as run
from graphkiln.ir.ops.shape import reshape_shape
from graphkiln.ir.registry import InferenceError
from graphkiln.ir.types import tensor

N, S, P = sym("N"), sym("S"), sym("P")


class Net:
    """A graph under construction; strings and arrays as inputs are constants."""

    def __init__(self) -> None:
        self.graph = Graph()
        self.known: dict[Value, np.ndarray] = {}

    def x(self, *shape: Dim, dtype: str = "float32") -> Value:
        return self.graph.add_input("x", tensor(dtype, *shape))

    def __call__(self, op: str, *inputs: Any, outputs: int = 1, **attrs: Any) -> Any:
        domain, _, name = op.rpartition(".")
        values = [v if isinstance(v, Value | None) else self.constant(v) for v in inputs]
        node = self.graph.add_node(name, values, attrs, outputs=outputs, domain=domain)
        self.known = infer_types(self.graph)
        return node.out() if outputs == 1 else node.values

    def constant(self, value: Any) -> Value:
        return self.graph.add_constant(np.asarray(value, np.int64))

    def value(self, v: Value) -> list[Dim] | Dim | None:
        found = self.known.get(v)
        return None if found is None else found.tolist()


# ---- chains that exporters write -----------------------------------------------------------------


def test_attention_reshapes_keep_symbols_exact():
    g = Net()
    x = g.x(N, S, 768)
    heads = g("Reshape", x, [0, 0, 12, 64])
    assert heads.shape == (N, S, 12, 64)
    moved = g("Transpose", heads, perm=(0, 2, 1, 3))
    assert moved.shape == (N, 12, S, 64)
    back = g("Reshape", g("Transpose", moved, perm=(0, 2, 1, 3)), [0, -1, 768])
    assert back.shape == (N, S, 768)
    assert g("Reshape", moved, [0, -1, 768]).shape == (N, S, 768)
    assert g("Reshape", moved, [-1, 64]).shape == (12 * N * S, 64)


def test_a_computed_reshape_target():
    g = Net()
    x = g.x(N, S, 768)
    shape = g("Shape", x)
    batch, length = (g("Gather", shape, np.int64(i)) for i in (0, 1))
    parts = [g("Unsqueeze", v, [0]) for v in (batch, length)]
    target = g("Concat", *parts, [12], [-1], axis=0)
    assert g.value(target) == [N, S, 12, -1]
    assert g("Reshape", x, target).shape == (N, S, 12, 64)


def test_shape_without_the_last_dim():
    g = Net()
    x = g.x(N, S, 768)
    head = g("Slice", g("Shape", x), [0], [-1], [0])
    target = g("Concat", head, [12, 64], axis=0)
    assert g("Reshape", x, target).shape == (N, S, 12, 64)
    assert g.value(g("Shape", x, start=1, end=-1)) == [S]
    assert g.value(g("Shape", x, start=-5, end=9)) == [N, S, 768]
    assert g("Shape", x, start=2, end=1).shape == (0,)


def test_positions_up_to_the_sequence_length():
    g = Net()
    x = g.x(N, S)
    length = g("Squeeze", g("Gather", g("Shape", x), [1]))
    positions = g("Range", np.int64(0), length, np.int64(1))
    assert positions.shape == (S,)
    table = g.x(512, 64)
    rows = g("Slice", table, [0], g("Reshape", length, [1]), [0])
    assert str(rows.shape) == "(min(S,512), 64)"
    end = g("Concat", g("Shape", x), axis=0)
    assert g("Expand", g("Unsqueeze", positions, [0]), end).shape == (N, S)


def test_masks_of_ones():
    g = Net()
    x = g.x(N, S)
    ones = g("ConstantOfShape", g("Shape", x), value=np.array([1], np.int64))
    assert (ones.shape, ones.dtype) == ((N, S), "int64")
    total = g("Size", x)
    assert g.value(total) == N * S
    assert g("ConstantOfShape", g("Reshape", total, [1])).shape == (N * S,)
    counts = g("ConstantOfShape", [3], value=np.array([1], np.int64))
    assert g.value(counts) == [1, 1, 1]


def test_past_and_present_of_a_cache():
    g = Net()
    past, new = g.x(N, 12, P, 64), g.x(N, 12, S, 64)
    present = g("Concat", past, new, axis=2)
    assert present.shape == (N, 12, P + S, 64)
    total = g("Gather", g("Shape", present), np.int64(2))
    ends = g("Reshape", total, [1])
    start = g("Reshape", g("Gather", g("Shape", past), np.int64(2)), [1])
    assert g("Slice", g.x(1, 1, P + S, P + S), start, ends, [2]).shape == (1, 1, S, P + S)


def test_splits_of_symbols_add_up():
    g = Net()
    x = g.x(2 * N, S)
    a, b = g("Split", x, axis=0, num_outputs=2, outputs=2)
    assert a.shape == b.shape == (N, S)
    a, b = g("Split", x, None, axis=1, num_outputs=2, outputs=2)
    assert a.shape[1] + b.shape[1] == S
    first, rest = g("Split", g("Shape", x), [1, 1], axis=0, outputs=2)
    assert (g.value(first), g.value(rest)) == ([2 * N], [S])


def test_pads_of_exporters_fold():
    g = Net()
    x = g.x(N, 3, S, S)
    pairs = g("Reshape", g("Concat", [1, 2, 3, 4], g("ConstantOfShape", [4],
              value=np.array([0], np.int64)), axis=0), [-1, 2])  # fmt: skip
    turned = g("Transpose", g("Slice", pairs, [-1], [-9223372036854775807], [0], [-1]), perm=(1, 0))
    pads = g("Reshape", turned, [-1])
    assert g.value(pads) == [0, 0, 3, 1, 0, 0, 4, 2]
    assert g("Pad", x, pads).shape == (N, 3, S + 7, S + 3)


def test_values_written_at_places():
    g = Net()
    shape = g("Shape", g.x(N, S))
    at = g("ScatterND", shape, [[1]], [7])
    assert g.value(at) == [N, 7]
    assert g.value(g("ScatterElements", shape, [0], [5], axis=0)) == [5, S]
    assert g.value(g("GatherElements", shape, [1, 1, 0], axis=0)) == [S, S, N]
    assert g.value(g("Tile", shape, [2])) == [N, S, N, S]


def test_where_a_known_mask_is_set():
    g = Net()
    found = g("NonZero", g("ConstantOfShape", [2, 2], value=np.array([1], np.int64)))
    assert found.shape == (2, 4)
    assert g.value(g("Transpose", found)) == [[0, 0], [0, 1], [1, 0], [1, 1]]
    flags = g.graph.add_constant(np.array([True, False, True]))
    assert g.value(g("NonZero", flags)) == [[0, 2]]
    assert g("Compress", g.x(N, 3), np.array([True, False, True]), axis=1).shape == (N, 2)


# ---- single shapes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "target", "want"),
    [
        ((2, 3, 4), (0, -1), (2, 12)),
        ((N, S, 8), (-1,), (8 * N * S,)),
        ((N, S, 8), (-1, 8), (N * S, 8)),
        ((N, 4, S, S), (N * 4, -1, S), (4 * N, S, S)),
        ((N, S + 1, 8), (0, -1, 2), (N, 4 * (S + 1), 2)),
        ((0, 3), (3, -1), (3, 0)),
        ((), (1, 1), (1, 1)),
    ],
)
def test_reshape_targets(shape, target, want):
    assert reshape_shape(shape, target) == want


@pytest.mark.parametrize("target", [(-1, -1), (5, -1), (4, 2), (0, 0, 0, 0), (-2, 3), (0, -1)])
def test_targets_that_do_not_fit(target):
    with pytest.raises(ValueError):
        reshape_shape((2, 3) if target != (0, -1) else (0, 3), target)


def test_allowzero_means_zero():
    assert reshape_shape((0, 10), (10, 0), allowzero=True) == (10, 0)


def shape_of(op: str, shapes: Sequence[tuple[Dim, ...]], *rest: Any, **attrs: Any) -> Any:
    g = Net()
    return g(op, *(g.x(*s) for s in shapes), *rest, **attrs).shape


@pytest.mark.parametrize(
    ("op", "shapes", "rest", "attrs", "want"),
    [
        ("Flatten", [(N, 3, S)], (), {"axis": 2}, (3 * N, S)),
        ("Flatten", [(N, 3, S)], (), {"axis": 0}, (1, 3 * N * S)),
        ("Squeeze", [(1, N, 1)], ([0, -1],), {}, (N,)),
        ("Squeeze", [(1, 3, 1)], (), {}, (3,)),
        ("Unsqueeze", [(N, S)], ([0, -1],), {}, (1, N, S, 1)),
        ("com.microsoft.ExpandDims", [(N, S)], (np.int64(1),), {}, (N, 1, S)),
        ("Expand", [(N, 1)], ([1, 4],), {}, (N, 4)),
        ("Tile", [(N, 3)], ([2, 1],), {}, (2 * N, 3)),
        ("Concat", [(N, 2), (N, 3)], (), {"axis": -1}, (N, 5)),
        ("Concat", [(N, 2), (4, 3)], (), {"axis": 1}, (4, 5)),
        ("Slice", [(N, 10)], ([1], [-1], [1], [3]), {}, (N, 3)),
        ("Slice", [(N, 10)], ([-1], [-(2**63)], [0], [-1]), {}, (N, 10)),
        ("Pad", [(N, 3)], ([0, 1, 0, -1],), {}, (N, 3)),
        ("Pad", [(N, S)], ([1, 2], None, [-1]), {}, (N, S + 3)),
        ("Gather", [(N, 5, S), ], ([[0, 1]],), {"axis": 1}, (N, 1, 2, S)),
        ("GatherND", [(N, 5, S)], ([[0, 1]],), {}, (1, S)),
        ("GatherND", [(2, 5, S)], ([[1], [0]],), {"batch_dims": 1}, (2, S)),
        ("TopK", [(N, S)], ([5],), {"outputs": 2}, None),
        ("DepthToSpace", [(N, 8, S, 3)], (), {"blocksize": 2}, (N, 2, 2 * S, 6)),
        ("SpaceToDepth", [(N, 8, 2 * S, 6)], (), {"blocksize": 2}, (N, 32, S, 3)),
        ("CenterCropPad", [(N, 8, S)], ([4, 4],), {"axes": (1, 2)}, (N, 4, 4)),
        ("Col2Im", [(N, 12, 9)], ([4, 4], [2, 2]), {}, (N, 3, 4, 4)),
        ("EyeLike", [(N, S)], (), {}, (N, S)),
        ("Trilu", [(N, S)], (), {}, (N, S)),
        ("kiln.Reshape", [(N, S, 6)], (), {"shape": (N * S, 6)}, (N * S, 6)),
        ("kiln.Expand", [(1, S)], (), {"shape": (N, S)}, (N, S)),
        ("kiln.Slice", [(N, S)], (),
         {"starts": (0, S - 1), "steps": (1, -1), "shape": (N, S)}, (N, S)),
    ],
)  # fmt: skip
def test_symbolic_output_shapes(op, shapes, rest, attrs, want):
    if op == "TopK":
        g = Net()
        values, places = g(op, g.x(*shapes[0]), *rest, **attrs)
        assert values.shape == places.shape == (N, 5)
        return
    assert shape_of(op, shapes, *rest, **attrs) == want


@pytest.mark.parametrize(
    ("op", "shapes", "rest", "attrs", "message"),
    [
        ("Squeeze", [(2, 1)], ([0],), {}, "axis 0"),
        ("Squeeze", [(N, 1)], (), {}, "depends on which"),
        ("Transpose", [(2, 3)], (), {"perm": (0, 0)}, "twice"),
        ("Transpose", [(2, 3)], (), {"perm": (0,)}, "does not fit"),
        ("Concat", [(2, 3), (3, 3)], (), {"axis": 1}, "differ"),
        ("Concat", [(2, 3), (3,)], (), {"axis": 0}, "cannot be joined"),
        ("Gather", [(2, 3)], ([2],), {"axis": 0}, "indices within"),
        ("Reshape", [(2, 3)], ([4, 2],), {}, "does not reshape"),
        ("Split", [(5,)], ([2, 2],), {"outputs": 2}, "add up"),
        ("Slice", [(5,)], ([0], [2], [0], [0]), {}, "step"),
        ("Slice", [(5,)], ([0, 0], [2, 2]), {}, "do not fit"),
        ("Pad", [(5,)], ([-3, -3],), {}, "cut off"),
        ("Pad", [(5,)], ([1, 1],), {"mode": "mirror"}, "not known"),
        ("Tile", [(5,)], ([1, 1],), {}, "do not fit"),
        ("DepthToSpace", [(1, 6, 2, 2)], (), {"blocksize": 2}, "divides"),
        ("TopK", [(5,)], ([6],), {"outputs": 2}, "elements of axis"),
        ("ConstantOfShape", [], ([-1],), {}, "negative"),
        ("kiln.Slice", [(5,)], (), {"starts": (3,), "steps": (1,), "shape": (3,)}, "leave"),
        ("ScatterND", [(5,)], ([[0]], [[1]]), {}, "do not fit"),
    ],
)  # fmt: skip
def test_inputs_that_do_not_fit(op, shapes, rest, attrs, message):
    with pytest.raises(InferenceError, match=message):
        shape_of(op, shapes, *rest, **attrs)


def test_unknown_numbers_give_fresh_dims_of_the_right_rank():
    g = Net()
    vector = g.x(3, dtype="int64")
    x = g.x(N, S, 4)
    for op, rest in (("Reshape", ()), ("Expand", ()), ("Tile", ()), ("Slice", (vector,))):
        shape = g(op, x, vector, *rest).shape
        assert len(shape) == 3, op
        assert len({d for d in shape if not isinstance(d, int)}) >= 2, op
    assert len(g("Reshape", x, g.x(1, dtype="int64")).shape) == 1
    assert g("Expand", x, vector).shape[2] == 4


def test_a_rank_that_depends_on_data_is_an_error():
    g = Net()
    with pytest.raises(InferenceError, match="length must be known"):
        g("Reshape", g.x(N, 4), g.x(S, dtype="int64"))


# ---- values hold for every size ------------------------------------------------------------------

SIZES = st.fixed_dictionaries({name: st.integers(1, 6) for name in ("N", "S")})


def _grow(net: Net, draw: st.DrawFn, pool: list[Value]) -> None:
    """Add one op on vectors of known values."""
    a, b = (draw(st.sampled_from(pool)) for _ in range(2))
    length = int(a.shape[0])  # type: ignore[arg-type]
    kind = draw(st.sampled_from(["gather", "slice", "concat", "square", "tile", "split", "swap"]))
    if kind == "gather" and length:
        at = draw(st.lists(st.integers(-length, length - 1), max_size=4))
        pool.append(net("Gather", a, at, axis=0))
    elif kind == "slice":
        start, end = (draw(st.integers(-4, 4)) for _ in range(2))
        step = draw(st.sampled_from([-2, -1, 1, 2]))
        pool.append(net("Slice", a, [start], [end], [0], [step]))
    elif kind == "concat":
        pool.append(net("Concat", a, b, axis=0))
    elif kind == "square":
        column = net("Unsqueeze", a, [1])
        both = net("Expand", column, [1, 2])
        pool.append(net("Reshape", net("Transpose", both, perm=(1, 0)), [-1]))
    elif kind == "tile" and length < 10:
        pool.append(net("Tile", a, [2]))
    elif kind == "split" and length > 1:
        pool.extend(net("Split", a, [1, length - 1], axis=0, outputs=2))
    elif kind == "swap" and length:
        at = draw(st.integers(-length, length - 1))
        value = net("Gather", a, [0], axis=0)
        pool.append(net("ScatterElements", a, [at], value, axis=0))


@given(st.data(), SIZES)
def test_known_values_are_what_the_interpreter_computes(data, sizes):
    net = Net()
    x = net.x(N, S, 3)
    pool = [net("Shape", x), net("Shape", x, start=1), net("Reshape", net("Size", x), [1])]
    for _ in range(data.draw(st.integers(1, 8))):
        _grow(net, data.draw, pool)
    net.graph.set_outputs(pool)
    feeds = {net.graph.inputs[0].name: np.zeros((sizes["N"], sizes["S"], 3), np.float32)}
    for v, got in zip(pool, run(net.graph, feeds, check_types=True), strict=True):
        want = net.known[v]
        assert got.tolist() == [evaluate(d, sizes) for d in want.tolist()], v.node.op


@given(SIZES, st.lists(st.integers(-7, 7), min_size=2, max_size=2), st.sampled_from([1, 2, -1]))
def test_slice_shapes_hold_for_every_size(sizes, bounds, step):
    net = Net()
    x = net.x(N, S, 3)
    y = net("Slice", x, [bounds[0]], [bounds[1]], [1], [step])
    net.graph.set_outputs([y])
    feeds = {net.graph.inputs[0].name: np.zeros((sizes["N"], sizes["S"], 3), np.float32)}
    (got,) = run(net.graph, feeds)
    assert got.shape == tuple(evaluate(d, sizes) for d in y.shape)


def test_dialect_ops_evaluate_with_their_symbols_bound():
    g = Net()
    x = g.x(N, S)
    flat = g("kiln.Reshape", x, shape=(N * S,))
    last = g("kiln.Slice", flat, starts=(N * S - 1,), steps=(-2,), shape=((N * S + 1) // 2,))
    wide = g("kiln.Expand", last, shape=(2, (N * S + 1) // 2))
    dims = g("kiln.ShapeValue", dims=(N, S + 1, 7, 0), shape=(2, 2), dtype="int32")
    g.graph.set_outputs([wide, dims])
    assert g.value(dims) == [[N, S + 1], [7, 0]]
    data = np.arange(6, dtype=np.float32).reshape(2, 3)
    wide_, dims_ = run(g.graph, {g.graph.inputs[0].name: data}, check_types=True)
    assert wide_.tolist() == [[5, 3, 1]] * 2
    assert dims_.dtype == np.int32 and dims_.tolist() == [[2, 4], [7, 0]]


def test_sizes_are_never_negative():
    assert shape_of("Slice", [(S,)], [1], [2**31 - 1], [0]) == (dim_max(0, S - 1),)
    node = Net()
    y = node("Range", np.int64(0), node("Size", node.x(S)), np.int64(2))
    assert y.shape == ((S + 1) // 2,)
    assert isinstance(y.node, Node)
