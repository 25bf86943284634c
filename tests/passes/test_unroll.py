"""Loops that are unrolled, and loops that are kept."""

from __future__ import annotations

import numpy as np
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


SHRINKING = """
graph main(%x: float32[6]) -> (z) {
  %three = constant int64[] 3
  %z = Loop(%three, _, %x) {
    num_carried = 1,
    body = graph turn(%i: int64[], %go: bool[], %v: float32[M]) -> (going, next) {
      %going = Identity(%go)
      %s = Shape(%v)
      %wide = ConstantOfShape(%s) {value=tensor float32[1] [1.0]}
      %lower = Sub(%v, %wide)
      %zero = constant float32[] 0.0
      %b = Greater(%lower, %zero)
      %next = Compress(%lower, %b) {axis=0}
      return %going, %next
    }
  }
  return %z
}
"""


def test_sizes_that_depend_on_the_data_of_an_iteration_stay() -> None:
    """The size of what is carried is open in the body, and a node without inputs asks for it."""
    graph = graph_of(SHRINKING)
    feeds = {"x": np.array([0.5, 1.5, 2.5, 3.5, 4.5, -1], np.float32)}
    same(evaluate(graph, feeds), [np.array([0.5, 1.5], np.float32)])
    reasons: list[str] = []
    run(graph, "shapes,unroll", PassContext(explain=lambda _r, _n, why: reasons.append(why)))
    assert [n.op for n in graph.nodes] == ["Loop"]
    assert any("sizes that depend on data" in r for r in reasons), reasons


def test_sizes_that_stay_the_same_are_known() -> None:
    text = SHRINKING.replace("%next = Compress(%lower, %b) {axis=0}", "%next = Identity(%lower)")
    graph = graph_of(text)
    feeds = random_feeds(graph)
    expected = evaluate(graph, feeds)
    run(graph, "shapes,unroll,dce")
    assert "Loop" not in {n.op for n in graph.nodes}
    same(evaluate(graph, feeds), expected)


ROWS = """
graph main(%x: float32[2], %k: float32[2]) -> (all) {{
  %trips = constant int64[] {trips}
  {given}
  %all = Loop(%trips, {condition}, %k) {{
    body = graph turn(%i: int64[], %go: bool[], %k: float32[2]) -> (going, row) {{
      %going = {going}
      %f = Cast(%i) {{to=1}}
      %g = Cast(%go) {{to=1}}
      %s = Add(%f, %g)
      %row = Mul(%k, %s)
      return %going, %row
    }}
  }}
  return %all
}}
"""


def rows(
    trips: int = 3, given: str = "", condition: str = "_", going: str = "Identity(%go)"
) -> tuple[list[str], str]:
    """The ops after unrolling a loop that only stacks rows, with the same numbers, and why not."""
    text = ROWS.format(trips=trips, given=given, condition=condition, going=going)
    graph = graph_of(text)
    feeds = random_feeds(graph)
    expected = evaluate(graph, feeds)
    reasons: list[str] = []
    context = PassContext(explain=lambda _r, _n, why: reasons.append(why))
    run(graph, "unroll,dce", context)
    same(evaluate(graph, feeds), expected)
    return [n.op for n in graph.topological()], " ".join(reasons)


@pytest.mark.parametrize("trips", [1, 2, 16])
def test_rows_are_stacked_without_anything_carried(trips: int) -> None:
    """``num_carried`` is absent; of one row there is nothing to join."""
    ops, _ = rows(trips)
    assert "Loop" not in ops and ops.count("Concat") == (trips > 1)


@pytest.mark.parametrize(
    ("condition", "going", "kept"),
    [
        ("true", "Identity(%go)", False),
        ("false", "Identity(%go)", True),
        ("true", "constant bool[] true", False),
        ("true", "constant bool[] false", True),
        ("true", "Not(%go)", True),
    ],
)
def test_conditions_that_are_constant(condition: str, going: str, kept: bool) -> None:
    ops, reason = rows(given=f"%c = constant bool[] {condition}", condition="%c", going=going)
    assert ("Loop" in ops) is kept
    assert ("a condition may end it" in reason) is kept


def test_more_trips_than_the_default_stay() -> None:
    assert "17 iterations" in rows(17)[1]


@pytest.mark.parametrize(
    ("options", "unrolled"),
    [("max-trips=3", 1), ("max-trips=2", 0), ("max-nodes=12", 1), ("max-nodes=11", 0)],
)
def test_the_limits_are_what_they_say(options: str, unrolled: int) -> None:
    """Three iterations of four operations."""
    assert run(graph_of(POWERS), f"unroll{{{options}}}").records[0].changes == unrolled


def test_a_first_value_whose_size_depends_on_data_stays() -> None:
    text = SHRINKING.replace("%next = Compress(%lower, %b) {axis=0}", "%next = Identity(%lower)")
    text = text.replace("(%three, _, %x)", "(%three, _, %first)").replace(
        "  %z = Loop", "  %o = constant float32[] 1.0\n  %big = Greater(%x, %o)\n"
        "  %first = Compress(%x, %big) {axis=0}\n  %z = Loop",
    )  # fmt: skip
    graph = graph_of(text)
    feeds = {"x": np.array([0.5, 1.5, 2.5, 3.5, 4.5, -1], np.float32)}
    expected = evaluate(graph, feeds)
    run(graph, "shapes,unroll,dce")
    same(evaluate(graph, feeds), expected)
    assert "Loop" in {n.op for n in graph.nodes}
