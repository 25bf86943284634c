"""Dead code and common subexpressions."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import graph_of
from support.pass_checks import Golden, check, run

DEAD = """
graph main(%x: float32[2,3,4,4], %unused: float32[1]) -> (y) {
  %w = constant float32[1] [1.0]
  %d = Exp(%x)
  %e = Add(%d, %w)
  %y, %indices = MaxPool(%x) {kernel_shape=[2, 2]}
  return %y
}
"""

CAPTURES = """
graph main(%go: bool[], %x: float32[3], %z: float32[3]) -> (y) {
  %a = Exp(%x)
  %y = If(%go, %a, %z) {
    else_branch = graph no(%a: float32[3], %z: float32[3]) -> (o) {
      %o = Neg(%z)
      return %o
    },
    then_branch = graph yes(%a: float32[3], %z: float32[3]) -> (o) {
      %dead = Mul(%a, %z)
      %o = Abs(%z)
      return %o
    }
  }
  return %y
}
"""

EQUAL = """
graph main(%x: float32[2,3], %y: float32[2,3]) -> (r, s, t) {
  %a = constant float32[] 2.0
  %b = constant float32[] 2.0
  %i = constant int64[] 2
  %p = Add(%x, %y)
  %q = Add(%y, %x)
  %pa = Mul(%p, %a)
  %qb = Mul(%q, %b)
  %r = Sub(%pa, %qb)
  %s1 = Softmax(%x)
  %s2 = Softmax(%x) {axis=-1}
  %s3 = Softmax(%x) {axis=0}
  %s = Sub(%s1, %s2)
  %t = Sub(%s1, %s3)
  return %r, %s, %t
}
"""

SIZES = """
graph main(%x: float32[4]) -> (y) {
  %a = NonZero(%x)
  %b = NonZero(%x)
  %back = constant int64[1] [-1]
  %fa = Reshape(%a, %back)
  %fb = Reshape(%b, %back)
  %y = Add(%fa, %fb)
  return %y
}
"""


@pytest.mark.parametrize(
    ("name", "text", "pipeline"),
    [
        ("dce_dead", DEAD, "dce"),
        ("dce_captures", CAPTURES, "dce"),
        ("cse_equal", EQUAL, "cse,dce"),
        ("cse_sizes", SIZES, "shapes,cse,dce"),
    ],
)
def test_golden(golden: Golden, name: str, text: str, pipeline: str) -> None:
    check(golden, name, text, pipeline)


def test_a_check_goes_with_what_it_is_about() -> None:
    graph = graph_of("""
    graph main(%x: float32[4], %i: int64[2], %j: int64[2]) -> (y) {
      %i_fits = kiln.Within(%i) {high=3, low=-4}
      %i_checked = kiln.Require(%i, %i_fits) {message="i does not fit"}
      %j_fits = kiln.Within(%j) {high=3, low=-4}
      %j_checked = kiln.Require(%j, %j_fits) {message="j does not fit"}
      %dead = Gather(%x, %i_checked)
      %y = Gather(%x, %j_checked)
      return %y
    }
    """)
    run(graph, "dce")
    assert [n.attrs["message"] for n in graph.nodes if n.op == "Require"] == ["j does not fit"]


def test_model_inputs_stay() -> None:
    graph = graph_of(DEAD)
    run(graph, "dce")
    assert [v.name for v in graph.inputs] == ["x", "unused"]


def test_constants_are_equal_bit_by_bit() -> None:
    graph = graph_of("""
    graph main(%x: float32[]) -> (a, b) {
      %plus = constant float32[] 0.0
      %minus = constant float32[] -0.0
      %a = Div(%x, %plus)
      %b = Div(%x, %minus)
      return %a, %b
    }
    """)
    run(graph, "cse")
    assert len({v.node for v in graph.outputs}) == 2


def test_large_constants_that_start_alike() -> None:
    graph = graph_of("""
    graph main(%x: float32[100]) -> (y) {
      %y = Relu(%x)
      return %y
    }
    """)
    base = np.zeros(100, np.float32)
    other = base.copy()
    other[99] = 1
    values = [graph.add_constant(a) for a in (base, base.copy(), other)]
    sums = [graph.add_node("Add", [graph.inputs[0], v]).out() for v in values]
    graph.set_outputs(sums)
    from graphkiln.ir.infer import infer_types

    infer_types(graph)
    run(graph, "cse,dce")
    assert graph.outputs[0] == graph.outputs[1] != graph.outputs[2]


def test_random_ops_are_not_merged() -> None:
    graph = graph_of("""
    graph main(%x: float32[4]) -> (y) {
      %a = RandomNormalLike(%x)
      %b = RandomNormalLike(%x)
      %y = Sub(%a, %b)
      return %y
    }
    """)
    run(graph, "cse")
    assert len(graph) == 3


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("%y, %i = TopK(%x, %k)", 2),
        ("%y, %i = MaxPool(%x) {kernel_shape=[2]}", 1),
        ("%y, %i, %j, %n = Unique(%x)", 1),
        ("%z, %y, %n = LSTM(%w, %a, %b) {hidden_size=2}", 2),
    ],
)
def test_unused_results_go_where_the_op_may_be_without_them(line: str, left: int) -> None:
    """Those behind the last one that is used, and no fewer are left than the op has."""
    graph = graph_of(f"""
    graph main(%x: float32[1,1,4], %w: float32[2,1,3]) -> (y) {{
      %k = constant int64[1] [2]
      %a = constant float32[1,8,3] [{", ".join(["0.5"] * 24)}]
      %b = constant float32[1,8,2] [{", ".join(["0.25"] * 16)}]
      {line}
      return %y
    }}
    """)
    run(graph, "dce")
    assert len(graph.outputs[0].node.outputs) == left
