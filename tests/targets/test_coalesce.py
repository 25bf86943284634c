"""Merging dims of element-wise regions: new shapes, and the same numbers from the same memory."""

import re

import numpy as np
import pytest
import tvm_ffi
from targets.oputil import bind_symbols, build, run_graph

from graphkiln.ir.dims import sym
from graphkiln.ir.graph import Graph
from graphkiln.ir.infer import infer_types
from graphkiln.ir.types import tensor
from graphkiln.targets.generic.coalesce import coalesce, is_elementwise_region
from graphkiln.targets.generic.region import lower_region, region_symbols
from graphkiln.targets.tir.cpu_loops import CpuLoops

N, M = sym("N"), sym("M")


def region(*shapes, op="Add", constants=()):
    """op(op(x0, x1), x2) ... with a Relu of the first value as second output."""
    graph = Graph()
    values = [
        graph.add_constant(constants[i]) if i in constants
        else graph.add_input(f"x{i}", tensor("float32", *s))
        for i, s in enumerate(shapes)
    ]  # fmt: skip
    result = values[0]
    for v in values[1:]:
        result = graph.add_node(op, [result, v]).out()
    relu = graph.add_node("Relu", [values[0]]).out()
    graph.set_outputs([result, relu])
    infer_types(graph)
    return graph


def shapes_of(graph):
    return [v.shape for v in graph.inputs], [v.shape for v in graph.outputs]


@pytest.mark.parametrize(
    "shapes, inputs, outputs",
    [
        ([(1, 64, 56, 56), (64, 1, 1)], [(64, 3136), (64, 1)], [(64, 3136), (64, 3136)]),
        ([(2, 3, 4), (2, 3, 4)], [(24,), (24,)], [(24,), (24,)]),
        ([(2, 3, 4), ()], [(24,), ()], [(24,), (24,)]),
        ([(2, 3, 4), (4,)], [(6, 4), (4,)], [(6, 4), (6, 4)]),
        ([(2, 1, 4), (2, 3, 1)], [(2, 1, 4), (2, 3, 1)], [(2, 3, 4), (2, 1, 4)]),
        ([(1, 1), (1,)], [(), ()], [(), ()]),
        ([(N, 8, 4), (8, 4)], [(N, 32), (32,)], [(N, 32), (N, 32)]),
        ([(N, M, 4), (N, M, 4)], [(4 * N * M,), (4 * N * M,)], [(4 * N * M,), (4 * N * M,)]),
        ([(2, N, 3, 4), (2, M, 3, 4)], None, None),  # N and M may differ or broadcast
    ],
)
def test_shapes(shapes, inputs, outputs):
    merged = coalesce(region(*shapes))
    if inputs is None:
        assert [len(v.shape) for v in merged.inputs] == [3, 3]
    else:
        assert shapes_of(merged) == (inputs, outputs)


def test_what_has_nothing_to_merge_is_returned_as_it_is():
    graph = region((3, 4), (4,))
    assert coalesce(graph) is graph


def test_constants_are_reshaped():
    bias = np.arange(3, dtype=np.float32).reshape(3, 1, 1)
    merged = coalesce(region((2, 3, 4, 5), (3, 1, 1), constants={1: bias}))
    (constant,) = [n for n in merged.nx if n.op == "Constant"]
    assert constant.attrs["value"].shape == (3, 1)
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    got, _ = run_graph(merged, [x.reshape(2, 3, 20)])
    np.testing.assert_array_equal(got.reshape(x.shape), x + bias)


def test_other_regions_are_left_alone():
    graph = Graph()
    x = graph.add_input("x", tensor("float32", 2, 3, 4))
    graph.set_outputs([graph.add_node("Softmax", [x], {"axis": 1}).out()])
    infer_types(graph)
    assert not is_elementwise_region(graph)
    assert coalesce(graph) is graph


@pytest.mark.parametrize("scale, merged", [(np.float32(0.1), (24,)), (np.ones(3), (2, 3, 4))])
def test_quantisation_merges_dims_where_it_has_one_scale(scale, merged):
    graph = Graph()
    x = graph.add_input("x", tensor("uint8", 2, 3, 4))
    factor = graph.add_constant(np.asarray(scale, np.float32))
    value = graph.add_node("DequantizeLinear", [x, factor], {"axis": 1}).out()
    graph.set_outputs([graph.add_node("Relu", [value]).out()])
    infer_types(graph)
    (result,) = coalesce(graph).outputs
    assert result.shape == merged


@pytest.mark.parametrize(
    "shapes, extents",
    [
        ([(2, 3, 4, 5), (3, 1, 1)], [(2, 3, 4, 5), (3, 1, 1)]),
        ([(N, M, 4), (N, 1, 1), (M, 4)], [(3, 5, 4), (3, 1, 1), (5, 4)]),
        ([(N, M), (M,), ()], [(3, 5), (5,), ()]),
    ],
)
def test_a_merged_kernel_takes_the_first_ones_arguments(shapes, extents):
    graph = region(*shapes, op="Mul")
    merged = coalesce(graph)
    rng = np.random.default_rng(0)
    feeds = [rng.normal(size=e).astype(np.float32) for e in extents]
    assert region_symbols(merged) == region_symbols(graph)
    bindings = bind_symbols(graph, feeds)
    outputs = [np.zeros(extents[0], np.float32) for _ in range(2)]
    arguments = [tvm_ffi.from_dlpack(a) for a in (*feeds, *outputs)]
    kernel = build(lower_region(merged, "k", CpuLoops(2)))["k"]
    kernel(*arguments, *(bindings[s] for s in region_symbols(graph)))
    for got, want in zip(outputs, run_graph(graph, feeds), strict=True):
        np.testing.assert_array_equal(got, want)


def test_kernels_do_not_read_shapes_from_their_tensors():
    """Symbols are arguments of their own; a tensor's own shape and strides are not consulted."""
    graph = coalesce(region((N, 4, 8), (4, 8)))
    source = build(lower_region(graph, "k", CpuLoops(2))).inspect_source("ll")
    assert not re.findall(r"%[\w.]+_(?:shape|strides)", source)
