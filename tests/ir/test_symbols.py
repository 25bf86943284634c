"""Symbols of data-dependent sizes keep their meaning when types are inferred again."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import graph_of

import graphkiln
from graphkiln.frontend.export import to_onnx
from graphkiln.ir.dims import sym
from graphkiln.ir.graph import Graph, Node
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.symbols import kept_names, loose_symbols, rename_type
from graphkiln.ir.text import print_graph
from graphkiln.ir.types import SequenceType, TensorType, Type, dtype
from graphkiln.passes.manager import PassManager
from graphkiln.passes.pipeline import parse_pipeline

GROWING = """
graph main(%x: float32[2,3]) -> (y, s) {
  %trips = constant int64[] 3
  %last, %s = Loop(%trips, _, %x, %x) {
    body = graph b(%i: int64[], %go: bool[], %v: float32[a,3], %x: float32[2,3]) -> (g, w, n) {
      %g = Identity(%go)
      %w = Concat(%v, %x) {axis=0}
      %n = Identity(%i)
      return %g, %w, %n
    },
    num_carried = 1
  }
  %shape = Shape(%last)
  %one = constant int64[1] [1]
  %wanted = Concat(%one, %shape) {axis=0}
  %y = Reshape(%last, %wanted)
  return %y, %s
}
"""
"""A loop whose trip count is the first of its sizes, and known once its condition has no name."""


def test_a_size_that_becomes_known_leaves_the_others_their_names() -> None:
    graph = graph_of(GROWING)
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    wanted = evaluate(graph, feeds)
    PassManager(parse_pipeline("shapes,dce,simplify")).run(graph)
    assert ", int64[3]" in print_graph(graph), "the trip count should be known"
    for got, value in zip(evaluate(graph, feeds), wanted, strict=True):
        np.testing.assert_array_equal(got, value)
    assert wanted[0].shape == (1, 8, 3)


CUT = """
graph main(%x: float32[3,1], %trips: int64[]) -> (y, s) {
  %parts = constant int64[2] [3, 0]
  %split = SplitToSequence(%x, %parts) {axis=0}
  %joined = ConcatFromSequence(%split) {axis=0, new_axis=0}
  %y, %s = Loop(%trips, _, %joined) {
    body = graph b(%i: int64[], %go: bool[], %v: float32[a,1]) -> (g, w, n) {
      %g = Identity(%go)
      %from = constant int64[1] [-1]
      %to = constant int64[1] [9223372036854775807]
      %last = Slice(%v, %from, %to)
      %w = Sub(%v, %last)
      %n = Identity(%i)
      return %g, %w, %n
    },
    num_carried = 1
  }
  return %y, %s
}
"""
"""A loop that carries as many rows as it is given, which only passes find out to be three."""


def test_a_carried_size_that_becomes_known_is_known_to_the_body() -> None:
    graph = graph_of(CUT)
    feeds = {"x": np.arange(3, dtype=np.float32).reshape(3, 1) ** 2, "trips": np.array(2)}
    wanted = evaluate(graph, feeds)
    PassManager(parse_pipeline("shapes,sequences,dce")).run(graph)
    (body,) = (g for g in graph.walk() if g is not graph)
    assert any(n.key == "kiln.Slice" for n in body.nx)
    assert body.inputs[2].type == typed(3, 1)
    assert not loose_symbols(body)
    for got, value in zip(evaluate(graph, feeds), wanted, strict=True):
        np.testing.assert_array_equal(got, value)


def node() -> Node:
    graph = Graph()
    return graph.add_node("NonZero", [graph.add_input("x", TensorType(dtype("float32"), (4,)))])


def typed(*dims: str | int) -> TensorType:
    return TensorType(dtype("float32"), tuple(sym(d) if isinstance(d, str) else d for d in dims))


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        ([("u#_1",), ("u#_0",)], [("u#_0",), (3,)], [("u#_1",), (3,)]),
        ([("u#_0",), ("u#_1",)], [("u#_1",), ("u#_0",)], [("u#_0",), ("u#_1",)]),
        ([("u#_0", "N")], [("u#_0", "N")], [("u#_0", "N")]),
        ([(3,), ("u#_0",)], [("u#_0",), ("u#_1",)], [("u#_2",), ("u#_0",)]),
        ([("u#_0", "u#_0")], [("u#_0", "u#_1")], [("u#_0", "u#_1")]),
        ([("u#_0", "u#_0")], [("u#_1", "u#_0")], [("u#_0", "u#_2")]),
        ([("u#_1",)], [("u#_0", "u#_1")], [("u#_0", "u#_1")]),
        ([None], [("u#_0",)], [("u#_0",)]),
        ([("M",)], [("u#_0",)], [("u#_0",)]),
    ],
)
def test_names_are_kept_by_place(old: list, new: list, kept: list) -> None:
    made = node()

    def types(shapes: list) -> list[Type | None]:
        told = [[str(d).replace("#", str(made.serial)) for d in s] if s else None for s in shapes]
        return [
            None if s is None else typed(*(int(d) if d.isdigit() else d for d in s)) for s in told
        ]

    fresh = [t for t in types(new) if t is not None]
    renames = kept_names(made, types(old), fresh)
    assert [rename_type(t, renames) for t in fresh] == types(kept)
    lists = [SequenceType(t) for t in fresh if isinstance(t, TensorType)]
    if len(lists) == len(old) == 1:
        inner = [None if t is None else SequenceType(t) for t in types(old)]
        assert kept_names(made, inner, lists) == renames


def test_the_compiled_model_has_the_sizes_too() -> None:
    graph = graph_of(GROWING)
    model = to_onnx(graph)
    session = graphkiln.compile(model, passes="shapes,dce,simplify,dce").session()
    y, s = session.run(None, {"x": np.ones((2, 3), np.float32)})
    assert y.shape == (1, 8, 3) and s.tolist() == [0, 1, 2]
