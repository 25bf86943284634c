"""Softmax and its logarithm, sums and norms that are built of simpler reductions.

Softmax:    exp(x - max x) / sum exp(x - max x), with or without the maximum
LogSoftmax: log softmax x = (x - max x) - log sum exp(x - max x) = x - logsumexp x
ReduceL2:   sqrt sum x^2        ReduceSumSquare: sum x*x
"""

from __future__ import annotations

from ...ir.axes.query import reduced_axes
from ...ir.edit import Editor
from ...ir.graph import Value
from ...ir.registry import attribute
from ..claims import SOFTMAX, SUMS, rounds
from ..pattern import Match, Op, Pattern, Replace, Rule, Var

_X = Var("x")
_KEPT = {"keepdims": 1}
_SHIFTED = Op("Sub", _X, Op("ReduceMax", _X, rest=True, attrs=_KEPT, name="max"))


def _exp_over_sum(inner: Pattern) -> Op:
    e = Op("Exp", inner)
    return Op("Div", e, Op("ReduceSum", e, rest=True, attrs=_KEPT, name="sum"))


def _one_axis(m: Match) -> str | None:
    """An objection where the reductions are not all over the same one axis."""
    axes = {reduced_axes(m.graph, m.node(n)) for n in ("sum", "max") if n in m.nodes}
    found = next(iter(axes))
    if len(axes) != 1 or found is None or len(found) != 1:
        return "the reductions are not over one common axis"
    return None


def _as(op: str) -> Replace:
    def replace(m: Match, r: Editor) -> Value:
        axes = reduced_axes(m.graph, m.node("sum"))
        assert axes is not None
        return r.op(op, m["x"], axis=axes[0])

    return replace


def _log(m: Match, r: Editor) -> Value:
    return r.op("LogSoftmax", m["x"], axis=attribute(m.node("softmax"), "axis"))


def _reduce(op: str) -> Replace:
    def replace(m: Match, r: Editor) -> Value:
        node = m.node("sum")
        inputs = [m["x"], *m.graph.inputs_of(node)[1:]]
        return r.node(op, inputs, dict(node.attrs)).out()

    return replace


def _log_of_sum(inner: Op) -> Op:
    total = Op("ReduceSum", Op("Exp", inner), rest=True, attrs=_KEPT, name="sum")
    return Op("Sub", inner, Op("Log", total))


RULES = (
    Rule(
        "softmax",
        _exp_over_sum(_SHIFTED),
        _as("Softmax"),
        _one_axis,
        claim=rounds("exp(x - max x) / sum exp(x - max x) = softmax(x)", SOFTMAX),
    ),
    Rule(
        "softmax-plain",
        _exp_over_sum(_X),
        _as("Softmax"),
        _one_axis,
        claim=rounds("exp x / sum exp x = softmax(x)", SOFTMAX),
    ),
    Rule(
        "log-softmax",
        Op("Log", Op("Softmax", _X, name="softmax")),
        _log,
        claim=rounds("log softmax x = x - log sum exp x", SOFTMAX),
    ),
    Rule(
        "log-softmax",
        _log_of_sum(_SHIFTED),
        _as("LogSoftmax"),
        _one_axis,
        claim=rounds("log softmax x = x - log sum exp x", SOFTMAX),
    ),
    Rule(
        "log-softmax",
        Op("Sub", _X, Op("ReduceLogSumExp", _X, rest=True, attrs=_KEPT, name="sum")),
        _as("LogSoftmax"),
        _one_axis,
        claim=rounds("log softmax x = x - log sum exp x", SOFTMAX),
    ),
    Rule(
        "sum-square",
        Op("ReduceSum", Op("Mul", _X, _X), rest=True, name="sum"),
        _reduce("ReduceSumSquare"),
        claim=rounds("sum (x * x) = sumsquare(x)", SUMS),
    ),
    Rule(
        "l2",
        Op("Sqrt", Op("ReduceSumSquare", _X, rest=True, name="sum")),
        _reduce("ReduceL2"),
        claim=rounds("sqrt sum x^2 = l2(x)", SUMS),
    ),
)
