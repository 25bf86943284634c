"""Movement and shape ops, compiled, against the reference evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from modes import check, ints, ramp
from oputil import Array, assert_close, run_graph, run_op

from graphkiln.ir.dims import sym
from graphkiln.ir.graph import Graph
from graphkiln.ir.infer import infer_types
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.types import tensor, to_numpy_dtype

# ---- views ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "target"),
    [((2, 3, 4), (2, -1)), ((2, 3, 4), (0, 4, 3)), ((6,), (1, 2, 1, 3)), ((2, 1, 3), (3, 2)),
     ((0, 3), (3, 0)), ((1,), ()), ((4, 6, 5), (2, 2, 3, -1, 5)), ((4, 6), (3, 8))],
)  # fmt: skip
def test_reshape(shape: tuple[int, ...], target: tuple[int, ...]) -> None:
    attrs = {"allowzero": int(0 in shape)}
    static = [(False, ()), (False, (1,))]
    check("Reshape", [ramp(*shape), ints(*target)], attrs, modes=static)


def test_reshape_of_symbols_to_a_constant_target() -> None:
    x = ramp(2, 5, 12)
    for target in (ints(0, 0, 3, 4), ints(0, -1), ints(-1), ints(0, -1, 4)):
        check("Reshape", [x, target], modes=[(True, (1,)), ("distinct", ())])


@pytest.mark.parametrize("axes", [(0,), (-1, 0), (1, 3), ()])
def test_unsqueeze_and_squeeze(axes: tuple[int, ...]) -> None:
    x = ramp(2, 3)
    check("Unsqueeze", [x, ints(*axes)])
    wide = np.expand_dims(x, tuple(axes))
    check("Squeeze", [wide, ints(*axes)], modes=[(False, ()), (False, (1,)), (True, (1,))])


def test_squeeze_with_axes_at_run_time_and_a_one_that_stays() -> None:
    check("Squeeze", [ramp(1, 3, 1), ints(2)], modes=[(False, ())])


def test_expand_dims() -> None:
    check("ExpandDims", [ramp(2, 3), np.array(-1, np.int32)], domain="com.microsoft")


def fused(shape: tuple[Any, ...], steps: Sequence[tuple[str, dict[str, Any]]], x: Array) -> None:
    """A region of several ops against the same graph evaluated."""
    graph = Graph()
    v = graph.add_input("x", tensor("float32", *shape))
    for op, attrs in steps:
        domain, _, name = op.rpartition(".")
        v = graph.add_node(name, [v], attrs, domain=domain).out()
    graph.set_outputs([v])
    infer_types(graph)
    (got,) = run_graph(graph, [x])
    (want,) = evaluate(graph, {"x": x})
    assert_close(got, want)


@pytest.mark.parametrize("symbolic", [False, True])
def test_heads_are_split_and_merged_inside_a_region(symbolic: bool) -> None:
    n, s = (sym("N"), sym("S")) if symbolic else (2, 5)
    steps: list[tuple[str, dict[str, Any]]] = [
        ("Neg", {}),
        ("kiln.Reshape", {"shape": (n, s, 3, 4)}),
        ("Transpose", {"perm": (0, 2, 1, 3)}),
        ("kiln.Slice", {"starts": (0, 2, s - 1, 1), "steps": (1, -1, -1, 2),
                        "shape": (n, 3, s, 2)}),
        ("Transpose", {"perm": (0, 2, 1, 3)}),
        ("kiln.Reshape", {"shape": (n, s, 6)}),
    ]  # fmt: skip
    fused((n, s, 12), steps, ramp(2, 5, 12))
    fused((n, s, 12), [*steps, ("Neg", {})], ramp(2, 5, 12))


def test_a_reshape_that_cuts_across_dims() -> None:
    fused((4, 6), [("Neg", {}), ("kiln.Reshape", {"shape": (3, 2, 4)}), ("Neg", {})], ramp(4, 6))


def test_dims_as_values() -> None:
    n = sym("N")
    graph = Graph()
    x = graph.add_input("x", tensor("float32", n, 3))
    shape = graph.add_node("Shape", [x]).out()
    size = graph.add_node("Size", [x]).out()
    attrs = {"dims": (n + 1, 2 * n, 7, 0), "shape": (2, 2), "dtype": "int32"}
    dims = graph.add_node("ShapeValue", [], attrs, domain="kiln").out()
    wide = graph.add_node("Expand", [x], {"shape": (2, n, 3)}, domain="kiln").out()
    graph.set_outputs([shape, size, dims, wide])
    infer_types(graph)
    got = run_graph(graph, [ramp(4, 3)])
    assert [a.tolist() for a in got[:3]] == [[4, 3], 12, [[5, 8], [7, 0]]]
    assert_close(got[3], np.broadcast_to(ramp(4, 3), (2, 4, 3)))


# ---- transposes, copies --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shape", "perm"),
    [((3, 4), None), ((33, 70), (1, 0)), ((2, 3, 4, 5), (0, 2, 3, 1)),
     ((2, 3, 40, 50), (0, 1, 3, 2)), ((17, 3, 66), (2, 1, 0)), ((5,), (0,)), ((), ()),
     ((0, 3), (1, 0)), ((2, 1, 3), (2, 1, 0))],
)  # fmt: skip
def test_transpose(shape: tuple[int, ...], perm: tuple[int, ...] | None) -> None:
    attrs = {} if perm is None else {"perm": perm}
    check("Transpose", [ramp(*shape)], attrs, modes=[(False, ()), ("distinct", ())])


WIDTHS = ["float16", "bfloat16", "float8e4m3fn", "float8e8m0", "int4", "bool", "uint64", "float64"]


@pytest.mark.parametrize("name", WIDTHS)
def test_elements_of_every_width_move(name: str) -> None:
    x = (ramp(20, 40) % 7).astype(to_numpy_dtype(name))
    (turned,) = run_op("Transpose", [x])
    (joined,) = run_op("Concat", [x, x], {"axis": 1})
    assert turned.dtype == joined.dtype == x.dtype
    assert turned.tobytes() == np.ascontiguousarray(x.T).tobytes()
    assert joined.tobytes() == np.concatenate([x, x], 1).tobytes()


def test_expand() -> None:
    for x, shape in (
        (ramp(3, 1), (2, 1, 4)),
        (ramp(1), (3, 2)),
        (ramp(2, 3), (1,)),
        (ramp(), (2,)),
    ):
        check("Expand", [x, ints(*shape)])


def test_tile() -> None:
    for x, repeats in ((ramp(2, 3), (2, 2)), (ramp(1, 3), (4, 1)), (ramp(3), (0,))):
        check("Tile", [x, ints(*repeats)])
    fused((2, 3), [("Neg", {})], ramp(2, 3))


@pytest.mark.parametrize("axis", [0, 1, -1])
def test_concat(axis: int) -> None:
    shapes = [[2, 3, 4] for _ in range(3)]
    for i, s in enumerate(shapes):
        s[axis] = i + 1
    parts = [ramp(*s) for s in shapes]
    check("Concat", parts, {"axis": axis}, modes=[(False, ()), (True, ())], parameters=())


def test_split() -> None:
    x = ramp(7, 4)
    check("Split", [x], {"num_outputs": 3}, num_outputs=3)
    check("Split", [x, ints(1, 0, 6)], {"axis": 0}, num_outputs=3)
    check("Split", [x, ints(3, 1)], {"axis": -1}, num_outputs=2)


# ---- slices and borders --------------------------------------------------------------------------

bounds = st.one_of(st.integers(-7, 7), st.sampled_from([2**63 - 1, -(2**63), 2**31 - 1]))


@settings(max_examples=6)
@given(
    st.tuples(*[st.tuples(bounds, bounds, st.sampled_from([-3, -2, -1, 1, 2, 3]))] * 2),
    st.sampled_from(["int32", "int64"]),
)
@example(((0, 0, -3), (0, 0, -3)), "int32")  # nothing of an axis beside one of unknown extent
@example(((-9, -20, -1), (-3, -4, -2)), "int64")  # starts in front of the axis
def test_slice(cuts: tuple[tuple[int, int, int], ...], dtype: str) -> None:
    low = -(2**31) if dtype == "int32" else -(2**63)
    high = -low - 1
    starts, ends, steps = (
        np.array([min(max(v, low), high) for v in column], dtype)
        for column in zip(*cuts, strict=True)
    )
    axes = np.array([2, -3], dtype)
    modes = [("distinct", ()), (False, (1, 2, 3, 4)), ("distinct", (1, 2, 3, 4)), (False, (3, 4))]
    check("Slice", [ramp(5, 2, 6), starts, ends, axes, steps], modes=modes)


def test_slice_without_axes_and_with_axes_at_run_time() -> None:
    check("Slice", [ramp(5, 6), ints(1, -2), ints(4, 100)])
    check("Slice", [ramp(5, 6), ints(1), ints(4), ints(-1)], modes=[(False, ()), (False, (1, 2))])


FAR = {mode: ints(0, 5, 0, 7) for mode in ("constant", "edge", "wrap")}
FAR["reflect"] = ints(2, 3, 2, 3)  # a reflection shows no element twice


@pytest.mark.parametrize("mode", FAR)
def test_pad(mode: str) -> None:
    x = ramp(3, 4)
    for pads in (ints(1, 2, 0, 3), ints(0, 0, 0, 0), ints(-1, 1, 0, -2), FAR[mode]):
        check("Pad", [x, pads], {"mode": mode})
    value = np.float32(-1.5) if mode == "constant" else None
    check("Pad", [x, ints(2, 1), value, ints(-1)], {"mode": mode})


def test_pads_after_another_op_in_a_region() -> None:
    graph = Graph()
    x = graph.add_input("x", tensor("float32", 3, 4))
    pads = graph.add_constant(ints(1, 0, 2, 3), "pads")
    padded = graph.add_node("Pad", [graph.add_node("Neg", [x]).out(), pads]).out()
    graph.set_outputs([padded, graph.add_node("Neg", [padded]).out()])
    infer_types(graph)
    got = run_graph(graph, [ramp(3, 4)])
    want = np.pad(-ramp(3, 4), [(1, 2), (0, 3)])
    assert_close(got[0], want)
    assert_close(got[1], -want)


def test_pad_of_integers_and_flags() -> None:
    check("Pad", [ramp(4, dtype="int8"), ints(1, 2), np.int8(-7)])
    check("Pad", [ramp(4, dtype="bool"), ints(1, 2), np.bool_(True)])
    check("Pad", [ramp(1, 4), ints(0, 1, 0, 2).reshape(1, 4)], {"mode": "edge"}, "com.microsoft")


def test_center_crop_pad() -> None:
    for target in ((3, 9), (5, 6), (8, 4), (4, 7)):
        check("CenterCropPad", [ramp(5, 6), ints(*target)])
    check("CenterCropPad", [ramp(2, 5, 6), ints(8)], {"axes": (-1,)})


@settings(max_examples=4)
@given(
    st.integers(1, 2), st.integers(1, 3), st.integers(1, 2), st.integers(0, 1), st.integers(0, 99)
)
def test_col2im(stride: int, block: int, dilation: int, pad: int, seed: int) -> None:
    image = (7, 6)
    reach = dilation * (block - 1) + 1
    columns = np.prod([(n + 2 * pad - reach) // stride + 1 for n in image])
    rng = np.random.default_rng(seed)
    x = rng.integers(-9, 9, (2, 2 * block * block, int(columns))).astype(np.float32)
    attrs = {"strides": (stride,) * 2, "dilations": (dilation,) * 2, "pads": (pad,) * 4}
    modes = [(False, ()), (True, (1, 2))]
    check("Col2Im", [x, ints(*image), ints(block, block)], attrs, modes=modes)


# ---- triangles, sequences, blocks ----------------------------------------------------------------


@pytest.mark.parametrize("upper", [0, 1])
def test_trilu(upper: int) -> None:
    for k in (-2, 0, 1, 9):
        check("Trilu", [ramp(2, 3, 4), np.array(k, np.int64)], {"upper": upper})
    check("Trilu", [ramp(3, 4), ints(1)], {"upper": upper}, "com.microsoft")


def test_reverse_sequence() -> None:
    x = ramp(4, 3, 2)
    check("ReverseSequence", [x, ints(4, 1, 2)], {"time_axis": 0, "batch_axis": 1})
    check("ReverseSequence", [x, ints(0, 3, 1, 2)], {"time_axis": 1, "batch_axis": 0})


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_blocks(mode: str) -> None:
    modes = [(False, ()), ("distinct", ())]
    check("DepthToSpace", [ramp(2, 18, 3, 4)], {"blocksize": 3, "mode": mode}, modes=modes)
    check("SpaceToDepth", [ramp(2, 3, 4, 6)], {"blocksize": 2, "mode": mode}, modes=modes)
    steps = [("DepthToSpace", {"blocksize": 2, "mode": mode}), ("Neg", {})]
    fused((2, 8, 3, 4), steps, ramp(2, 8, 3, 4))
