"""Attention: where the scale and the mask stand, guards, ranks, and what is left alone."""

from __future__ import annotations

import numpy as np
import pytest
from support.graph_text import graph_of
from support.pass_checks import Golden, check, random_feeds, run, same

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.passes.base import PassContext

HEADS = """
graph main(%q: float32[B,S,3,8], %k: float32[B,T,3,8], %v: float32[B,T,3,5],
           %m: float32[B,1,1,T]) -> (y) {
  %c = constant float32[] 0.35355338
  %qt = Transpose(%q) {perm=[0, 2, 1, 3]}
  %kt = Transpose(%k) {perm=[0, 2, 3, 1]}
  %vt = Transpose(%v) {perm=[0, 2, 1, 3]}
  %s = MatMul(%qt, %kt)
  %f = Mul(%s, %c)
  %a = Add(%f, %m)
  %p = Softmax(%a)
  %y = MatMul(%p, %vt)
  return %y
}
"""

PARAMETERS = "%q: float32[2,3,4,8], %t: float32[2,3,8,6], %v: float32[2,3,6,5], %m: float32[4,6]"
CONSTANTS = """
%root = constant float32[] 0.59460354
%c = constant float32[1] [0.35355338]
%d = constant float32[] 2.8284271
%zero = constant float32[] 0.0
"""


def _graph(lines: str, parameters: str = PARAMETERS) -> Graph:
    return graph_of(f"graph main({parameters}) -> (y) {{{CONSTANTS}{lines}\nreturn %y\n}}")


def _attention(graph: Graph) -> dict[str, object]:
    """The attributes of the one attention that the graph becomes, with equal numbers."""
    feeds = random_feeds(graph)
    expected = evaluate(graph, feeds)
    run(graph, "recognize,dce")
    same(evaluate(graph, feeds), expected)
    (found,) = [n for n in graph.nodes if n.key == "kiln.Attention"]
    assert not {n.op for n in graph.nodes} & {"Softmax", "MatMul", "Mul", "Div", "IsNaN"}
    return {"inputs": len(graph.inputs_of(found)), **found.attrs}


def test_golden(golden: Golden) -> None:
    check(golden, "attention_heads", HEADS, "recognize,simplify,dce")


@pytest.mark.parametrize(
    ("lines", "inputs"),
    [
        ("%s = MatMul(%q, %t)\n%f = Mul(%s, %c)\n%p = Softmax(%f)", 3),
        ("%s = MatMul(%q, %t)\n%f = Div(%s, %d)\n%p = Softmax(%f)", 3),
        ("%u = Mul(%q, %c)\n%s = MatMul(%u, %t)\n%p = Softmax(%s)", 3),
        ("%u = Mul(%q, %root)\n%w = Mul(%root, %t)\n%s = MatMul(%u, %w)\n%p = Softmax(%s)", 3),
        ("%s = MatMul(%q, %t)\n%f = Mul(%c, %s)\n%a = Add(%m, %f)\n%p = Softmax(%a)", 4),
    ],
)
def test_scales_and_masks(lines: str, inputs: int) -> None:
    found = _attention(_graph(lines + "\n%y = MatMul(%p, %v)"))
    assert found["inputs"] == inputs
    assert found["scale"] == pytest.approx(8**-0.5, rel=1e-5)


def test_keys_that_were_transposed_are_read_as_they_are() -> None:
    graph = _graph(
        "%t = Transpose(%k) {perm=[0, 1, 3, 2]}\n%s = MatMul(%q, %t)\n%p = Softmax(%s)\n"
        "%y = MatMul(%p, %v)",
        PARAMETERS.replace("%t: float32[2,3,8,6]", "%k: float32[2,3,6,8]"),
    )
    _attention(graph)
    assert [n.op for n in graph.topological()] == ["Attention"]


def test_a_product_without_scale() -> None:
    graph = _graph("%s = MatMul(%q, %t)\n%p = Softmax(%s)\n%y = MatMul(%p, %v)")
    assert _attention(graph)["scale"] == 1.0


def test_operands_of_rank_three_get_one_head() -> None:
    parameters = "%q: float32[2,4,8], %t: float32[2,8,6], %v: float32[2,6,5], %m: float32[2,1,6]"
    lines = "%s = MatMul(%q, %t)\n%a = Add(%s, %m)\n%p = Softmax(%a)\n%y = MatMul(%p, %v)"
    assert _attention(_graph(lines, parameters))["inputs"] == 4


GUARD = "%n = IsNaN(%p)\n%g = Where(%n, %zero, %p)\n%y = MatMul(%g, %v)"


@pytest.mark.parametrize("rest", [GUARD, "%y = MatMul(%p, %v)"])
@pytest.mark.parametrize("bad", [-np.inf, np.inf, np.nan])
def test_rows_without_a_softmax(rest: str, bad: float) -> None:
    graph = _graph(f"%s = MatMul(%q, %t)\n%a = Add(%s, %m)\n%p = Softmax(%a)\n{rest}")
    feeds = random_feeds(graph)
    feeds["m"] = np.where(np.arange(4)[:, None] == 1, bad, feeds["m"]).astype(np.float32)
    expected = evaluate(graph, feeds)
    run(graph, "recognize,dce")
    assert [n.op for n in graph.topological()] == ["Transpose", "Attention"]
    same(evaluate(graph, feeds), expected)
    wrong = expected[0][:, :, 1]
    assert (wrong == 0).all() if rest == GUARD else np.isnan(wrong).all()


def test_a_number_divided_by_queries_is_no_scale() -> None:
    graph = _graph("%u = Div(%d, %q)\n%s = MatMul(%u, %t)\n%p = Softmax(%s)\n%y = MatMul(%p, %v)")
    feeds = random_feeds(graph)
    expected = evaluate(graph, feeds)
    run(graph, "recognize,dce")
    same(evaluate(graph, feeds), expected)
    assert [n.op for n in graph.topological()] == ["Div", "Transpose", "Attention"]


def test_a_factor_of_zero_is_no_scale() -> None:
    """An attribute of 0 would read as one that is missing."""
    graph = _graph("%s = MatMul(%q, %t)\n%f = Mul(%s, %zero)\n%p = Softmax(%f)\n"
                   "%y = MatMul(%p, %v)")  # fmt: skip
    run(graph, "recognize,dce")
    assert "kiln.Attention" not in {n.key for n in graph.nodes}


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            "%s = MatMul(%q, %t)\n%p = Softmax(%s)\n%z = Neg(%p)\n%o = MatMul(%p, %v)\n"
            "%r = MatMul(%z, %v)\n%y = Add(%o, %r)",
            "its left side is no softmax",
        ),
        (
            "%s = MatMul(%q, %t)\n%p = Softmax(%s) {axis=2}\n%y = MatMul(%p, %v)",
            "not over the last axis",
        ),
        (
            "%s = MatMul(%q, %t)\n%a = Add(%s, %m)\n%f = Mul(%a, %c)\n%p = Softmax(%f)\n"
            "%y = MatMul(%p, %v)",
            "the scores come from Add",
        ),
        (
            "%s = MatMul(%q, %t)\n%a = Add(%s, %m)\n%b = Add(%m, %a)\n%p = Softmax(%b)\n"
            "%y = MatMul(%p, %v)",
            "neither operand of the addition is a product",
        ),
        (
            "%s = MatMul(%q, %t)\n%e = Exp(%s)\n%p = Softmax(%s)\n%o = MatMul(%p, %v)\n"
            "%z = MatMul(%e, %v)\n%y = Add(%o, %z)",
            "there is no product of its own",
        ),
        (
            "%s = MatMul(%q, %t)\n%f = Mul(%s, %c)\n%e = Exp(%f)\n%p = Softmax(%f)\n"
            "%o = MatMul(%p, %v)\n%z = MatMul(%e, %v)\n%y = Add(%o, %z)",
            "the scores are used elsewhere",
        ),
        (
            "%s = MatMul(%q, %t)\n%p = Softmax(%s)\n%n = IsNaN(%p)\n%g = Where(%n, %d, %p)\n"
            "%y = MatMul(%g, %v)",
            "its left side is no softmax",
        ),
        (
            "%s = MatMul(%q, %t)\n%p = Softmax(%s)\n%n = IsNaN(%p)\n%g = Where(%n, %zero, %p)\n"
            "%o = MatMul(%g, %v)\n%e = Exp(%g)\n%z = MatMul(%e, %v)\n%y = Add(%o, %z)",
            "its left side is no softmax",
        ),
        (
            "%s = MatMul(%q, %t)\n%f = Div(%d, %s)\n%p = Softmax(%f)\n%y = MatMul(%p, %v)",
            "there is no product of its own",
        ),
        ("%s = Exp(%m)\n%p = Softmax(%s)\n%y = MatMul(%p, %v)", "the scores come from Exp"),
        (
            "%big = constant float32[2,1,1,1,1] [0.0, 1.0]\n%s = MatMul(%q, %t)\n"
            "%a = Add(%s, %big)\n%p = Softmax(%a)\n%y = MatMul(%p, %v)",
            "the mask broadcasts the scores",
        ),
    ],
)
def test_what_is_left_alone(lines: str, reason: str) -> None:
    graph = _graph(lines)
    reasons: list[str] = []
    run(graph, "recognize", PassContext(explain=lambda _r, _n, why: reasons.append(why)))
    assert "kiln.Attention" not in {n.key for n in graph.nodes}
    assert any(reason in r for r in reasons), reasons
