"""Sequences and optionals that are resolved at compile time, and those that are not."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import graph_of
from support.pass_checks import Golden, check, run

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
