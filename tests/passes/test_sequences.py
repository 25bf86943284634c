"""Sequences and optionals that are resolved at compile time, and those that are not."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import graph_of
from support.pass_checks import Golden, check, run, same

from graphkiln.ir.interpreter import evaluate

CONSTRUCTED = """
graph main(%x: float32[2,3], %y: float32[2,3]) -> (a, n, c, s) {
  %one = constant int64[] 1
  %back = constant int64[] -1
  %q = SequenceConstruct(%x, %y)
  %z = Neg(%x)
  %q2 = SequenceInsert(%q, %z, %one)
  %q3 = SequenceErase(%q2, %back)
  %a = SequenceAt(%q3, %back)
  %n = SequenceLength(%q2)
  %c = ConcatFromSequence(%q2) {axis=0}
  %s = ConcatFromSequence(%q2) {axis=1, new_axis=1}
  return %a, %n, %c, %s
}
"""

SPLIT = """
graph main(%x: float32[5,3]) -> (a, b, c) {
  %one = constant int64[] 1
  %two = constant int64[] 2
  %q = SplitToSequence(%x, %two)
  %a = SequenceAt(%q, %two)
  %r = SplitToSequence(%x) {axis=1, keepdims=0}
  %b = SequenceAt(%r, %one)
  %c = ConcatFromSequence(%r) {axis=0, new_axis=1}
  return %a, %b, %c
}
"""

OPTIONAL = """
graph main(%x: float32[N]) -> (a, b) {
  %o = Optional(%x)
  %p = Identity(%o)
  %b = OptionalHasElement(%p)
  %e = OptionalGetElement(%p)
  %a = Relu(%e)
  return %a, %b
}
"""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("sequences_constructed", CONSTRUCTED),
        ("sequences_split", SPLIT),
        ("sequences_optional", OPTIONAL),
    ],
)
def test_golden(golden: Golden, name: str, text: str) -> None:
    check(golden, name, text, "sequences,dce")


@pytest.mark.parametrize(
    "lines",
    [
        "%q = SequenceConstruct(%x, %x)\n%y = SequenceAt(%q, %i)",
        "%q = SplitToSequence(%x)\n%r = SequenceInsert(%q, %x, %i)\n%y = SequenceAt(%r, %i)",
    ],
)
def test_positions_only_known_at_run_time_stay(lines: str) -> None:
    graph = graph_of(f"""
    graph main(%x: float32[1,3], %i: int64[]) -> (y) {{
      {lines}
      return %y
    }}
    """)
    assert run(graph, "sequences").records[0].changes == 0


@pytest.mark.parametrize("split", ["", ", %two", ", %none"])
def test_nothing_is_split_into_no_parts(split: str) -> None:
    """As onnxruntime and onnx.reference do."""
    graph = graph_of(f"""
    graph main(%x: float32[2,0]) -> (n) {{
      %two = constant int64[] 2
      %none = constant int64[0] []
      %q = SplitToSequence(%x{split}) {{axis=1}}
      %n = SequenceLength(%q)
      return %n
    }}
    """)
    feeds = {"x": np.empty((2, 0), np.float32)}
    assert evaluate(graph, feeds)[0] == 0
    run(graph, "sequences")
    assert evaluate(graph, feeds)[0] == 0


@pytest.mark.parametrize("at", [-3, -2, -1, 0, 1, 2, None])
@pytest.mark.parametrize("op", ["SequenceErase(%q{at})", "SequenceInsert(%q, %n{at})"])
def test_every_position(op: str, at: int | None) -> None:
    """Also past the end of the sequence in front, and none: the last one."""
    position = "" if at is None else f"%at = constant int64[] {at}\n"
    change = op.format(at="" if at is None else ", %at")
    graph = graph_of(f"""
    graph main(%x: float32[2,3]) -> (y, n, e) {{
      %n = Neg(%x)
      %s = Add(%x, %x)
      {position}%q = SequenceConstruct(%x, %s, %n)
      %r = {change}
      %y = ConcatFromSequence(%r) {{axis=-1}}
      %one = constant int64[] 1
      %e = SequenceAt(%r, %one)
      return %y, %n, %e
    }}
    """)
    feeds = {"x": np.arange(6, dtype=np.float32).reshape(2, 3) + 1}
    expected = evaluate(graph, feeds)
    run(graph, "sequences,dce")
    assert not any(n.op.startswith("Sequence") for n in graph.topological())
    same(evaluate(graph, feeds), expected)


@pytest.mark.parametrize("at", [-4, 3, 4])
def test_positions_outside_stay(at: int) -> None:
    """The run tells what is wrong with them."""
    graph = graph_of(f"""
    graph main(%x: float32[2]) -> (y) {{
      %at = constant int64[] {at}
      %q = SequenceConstruct(%x, %x, %x)
      %y = SequenceAt(%q, %at)
      return %y
    }}
    """)
    run(graph, "sequences")
    assert graph.outputs[0].node.op == "SequenceAt"


def test_an_optional_that_holds_nothing() -> None:
    graph = graph_of("""
    graph main(%x: float32[2]) -> (y, z) {
      %o = Optional() {type=float32[2]}
      %p = Optional(%x)
      %y = OptionalHasElement(%o)
      %z = OptionalHasElement(%p)
      return %y, %z
    }
    """)
    feeds = {"x": np.zeros(2, np.float32)}
    assert [bool(v) for v in evaluate(graph, feeds)] == [False, True]
    run(graph, "sequences,dce")
    assert [bool(v) for v in evaluate(graph, feeds)] == [False, True]


def test_parts_that_do_not_fit_stay() -> None:
    """They have other sizes along the axes that are not joined."""
    graph = graph_of("""
    graph main(%x: float32[2,3], %z: float32[N,3]) -> (y) {
      %q = SequenceConstruct(%x, %z)
      %y = ConcatFromSequence(%q) {axis=1}
      return %y
    }
    """)
    run(graph, "sequences")
    assert graph.outputs[0].node.op == "ConcatFromSequence"
