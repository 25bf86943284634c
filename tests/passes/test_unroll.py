"""Loops that are unrolled, and loops that are kept."""

from __future__ import annotations

import pytest
from support.graph_text import graph_of
from support.pass_checks import Golden, check, random_feeds, run, same

from graphkiln.ir.interpreter import evaluate
from graphkiln.passes.base import PassContext

POWERS = """
graph main(%x: float32[2], %k: float32[2]) -> (last, all) {
  %three = constant int64[] 3
  %yes = constant bool[] true
  %last, %all = Loop(%three, %yes, %x, %k) {
    num_carried = 1,
    body = graph turn(%i: int64[], %go: bool[], %v: float32[2], %k: float32[2])
      -> (going, next, row) {
      %going = Identity(%go)
      %f = Cast(%i) {to=1}
      %s = Add(%k, %f)
      %next = Mul(%v, %s)
      return %going, %next, %next
    }
  }
  return %last, %all
}
"""

GROWING = """
graph main(%x: float32[2,3], %y: float32[4]) -> (z) {
  %q = SequenceConstruct(%x, %x)
  %n = SequenceLength(%q)
  %e = SequenceEmpty()
  %r = Loop(%n, _, %e, %q) {
    num_carried = 1,
    body = graph turn(%i: int64[], %go: bool[], %seq: seq<float32[*]>, %q: seq<float32[2,3]>)
      -> (going, grown) {
      %one = SequenceAt(%q, %i)
      %f = Cast(%i) {to=1}
      %s = Mul(%one, %f)
      %grown = SequenceInsert(%seq, %s)
      return %go, %grown
    }
  }
  %z = ConcatFromSequence(%r) {axis=0}
  return %z
}
"""


def test_golden(golden: Golden) -> None:
    check(golden, "unroll_powers", POWERS, "unroll,fold,dce")


def test_a_loop_over_a_sequence_goes_away() -> None:
    graph = graph_of(GROWING)
    feeds = random_feeds(graph)
    expected = evaluate(graph, feeds)
    run(graph, "fold,sequences,unroll,sequences,shapes,fold,dce")
    assert {n.op for n in graph.nodes} == {"Mul", "Concat"}
    same(evaluate(graph, feeds), expected)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (("constant int64[] 3", "constant int64[] 99"), "99 iterations"),
        (("constant int64[] 3", "constant int64[] 0"), "0 iterations"),
        (
            ("%going = Identity(%go)", "%z = constant int64[] 1\n%going = Less(%i, %z)"),
            "a condition",
        ),
        (("Loop(%three", "Loop(_"), "the number of iterations is not known"),
    ],
)
def test_loops_that_stay(change: tuple[str, str], reason: str) -> None:
    graph = graph_of(POWERS.replace(*change))
    reasons: list[str] = []
    run(graph, "unroll", PassContext(explain=lambda _r, _n, why: reasons.append(why)))
    assert [n.op for n in graph.nodes] == ["Loop"]
    assert any(reason in r for r in reasons), reasons


def test_large_bodies_stay() -> None:
    graph = graph_of(POWERS)
    assert run(graph, "unroll{max-nodes=8}").records[0].changes == 0
    assert run(graph, "unroll{max-trips=2}").records[0].changes == 0
