"""Shape propagation: golden text, and what stays because its sizes depend on data."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import graph_of
from support.pass_checks import Golden, check, random_feeds, run, same

from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.text import print_graph

CHAIN = """
graph main(%x: float32[N,3,4,4]) -> (y, n) {
  %shape = Shape(%x)
  %zero = constant int64[] 0
  %axis = constant int64[1] [0]
  %rest = constant int64[1] [-1]
  %n = Gather(%shape, %zero)
  %n1 = Unsqueeze(%n, %axis)
  %target = Concat(%n1, %rest) {axis=0}
  %y = Reshape(%x, %target)
  return %y, %n
}
"""

VIEWS = """
graph main(%x: float32[N,1,3,4]) -> (a, b, c, d) {
  %one = constant int64[1] [1]
  %copy = constant int64[3] [0, -1, 4]
  %a = Flatten(%x) {axis=2}
  %b = Squeeze(%x, %one)
  %c = Unsqueeze(%x, %one)
  %d = Reshape(%b, %copy)
  return %a, %b, %c, %d
}
"""

SLICES = """
graph main(%x: float32[N,8,6]) -> (a, b, c) {
  %shape = Shape(%x)
  %one = constant int64[1] [1]
  %two = constant int64[1] [2]
  %far = constant int64[1] [9223372036854775807]
  %back = constant int64[1] [-1]
  %front = constant int64[1] [-9223372036854775808]
  %n = Slice(%shape, %one, %two)
  %a = Slice(%x, %one, %far, %two)
  %b = Slice(%x, %back, %front, %one, %back)
  %c = Slice(%x, %one, %n, %one)
  return %a, %b, %c
}
"""

EXPANSIONS = """
graph main(%x: float32[N,1], %z: float32[N,7]) -> (a, b, c) {
  %shape = Shape(%z)
  %a = Expand(%x, %shape)
  %b = ConstantOfShape(%shape) {value=tensor float32[1] [2.5]}
  %small = constant int64[2] [2, 3]
  %c = ConstantOfShape(%small) {value=tensor int64[1] [5]}
  return %a, %b, %c
}
"""

DATA_DEPENDENT = """
graph main(%x: float32[4,N], %w: float32[1]) -> (y, e) {
  %where = NonZero(%x)
  %shape = Shape(%where)
  %one = constant int64[1] [-1]
  %y = Reshape(%where, %one)
  %e = Expand(%w, %shape)
  return %y, %e
}
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("shapes_chain", CHAIN),
        ("shapes_views", VIEWS),
        ("shapes_slices", SLICES),
        ("shapes_expansions", EXPANSIONS),
        ("shapes_data_dependent", DATA_DEPENDENT),
    ],
)
def test_golden(golden: Golden, name: str, text: str) -> None:
    check(golden, name, text, "shapes,dce")


def test_a_size_is_only_used_where_it_is_known_in_time() -> None:
    """The Expand does not read %where, so nothing would make %where run before it."""
    graph = graph_of(DATA_DEPENDENT)
    run(graph, "shapes,dce")
    text = print_graph(graph)
    assert "kiln.Reshape(%where)" in text
    assert "Expand(%w, %shape)" in text


@pytest.mark.parametrize("line", ["Slice(%z, %zero, %size)", "Slice(%z, %size, %end)"])
def test_a_slice_by_a_size_that_depends_on_data_stays(line: str) -> None:
    """%z does not have that size, so nothing would make %where run before a kiln.Slice."""
    graph = graph_of(f"""
    graph main(%x: float32[4], %z: float32[9]) -> (y) {{
      %where = NonZero(%x)
      %shape = Shape(%where)
      %one = constant int64[1] [1]
      %size = Gather(%shape, %one)
      %zero = constant int64[1] [0]
      %end = constant int64[1] [9]
      %y = {line}
      return %y
    }}
    """)
    run(graph, "shapes,dce")
    assert "Slice" in {n.key for n in graph.nodes}


def test_it_finds_nothing_the_second_time() -> None:
    graph = graph_of(CHAIN)
    first, _, second = run(graph, "shapes,dce,shapes").records
    assert first.changes > 0
    assert second.changes == 0


def test_bodies_know_what_the_graph_around_them_knows() -> None:
    """The captured shape is known outside: the body gets its sizes, not symbols of its own."""
    graph = graph_of("""
    graph main(%x: float32[2,3], %trips: int64[]) -> (z) {
      %shape = Shape(%x)
      %zero = constant float32[] 0.0
      %z = Loop(%trips, _, %x, %shape) {
        num_carried = 1,
        body = graph turn(%i: int64[], %go: bool[], %v: float32[2,3], %s: int64[2])
          -> (going, next) {
          %one = constant float32[] 1.0
          %wide = Expand(%one, %s)
          %back = constant int64[1] [-1]
          %flat = Reshape(%wide, %back)
          %again = Reshape(%flat, %s)
          %next = Add(%v, %again)
          return %go, %next
        }
      }
      return %z
    }
    """)
    feeds = {**random_feeds(graph), "trips": np.array(2)}
    expected = evaluate(graph, feeds)
    run(graph, "shapes,dce")
    same(evaluate(graph, feeds), expected)
    (body,) = [b for n in graph.nodes for _, b in graph.bodies(n)]
    assert [n.key for n in body.topological()] == [
        "kiln.Expand", "kiln.Reshape", "kiln.Reshape", "Add",
    ]  # fmt: skip
    assert [v.name for v in body.inputs] == ["i", "go", "v"]
