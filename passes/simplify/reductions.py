"""Reductions in their plainest form.

Reduce(x, axes of size 1) = x    Reshape(Reduce(x), ones for axes) = Reduce(x) keeping dims
Sum(x) * (1/n) = Mean(x)         n, the number of elements summed, a power of two
"""

from __future__ import annotations

from math import prod

from ...ir.axes.query import reduced_axes
from ...ir.edit import Editor
from ...ir.graph import Value
from ...ir.registry import attribute, has_trait
from ...ir.traits import Trait
from ..claims import Family, moved, proved, rounds
from ..pattern import Const, Match, Op, Rule, Var
from ..queries import splat
from .movement import same_type

_PLAIN = "ReduceSum|ReduceMean|ReduceMax|ReduceMin|ReduceProd"
_ANY = f"{_PLAIN}|ReduceSumSquare|ReduceL1|ReduceL2|ReduceLogSumExp|ReduceLogSum"


def _reduces_ones(m: Match) -> str | None:
    x = m["x"]
    if x.rank and 1 not in x.shape and not attribute(m.root, "noop_with_empty_axes"):
        return "it reduces"  # a quick answer for most nodes, without their axis map
    axes = reduced_axes(m.graph, m.root)
    if axes is None or not attribute(m.root, "keepdims"):
        return "the axes are not constant, or are dropped"
    return same_type(m) if all(m["x"].shape[a] == 1 for a in axes) else "it reduces"


def _sums_ones(m: Match) -> str | None:
    added = has_trait(m.root, Trait.UNORDERED_SUM) and m["x"].tensor_type.dtype.is_float
    return _reduces_ones(m) if added else "it is no sum of floats"


def _picks_ones(m: Match) -> str | None:
    added = has_trait(m.root, Trait.UNORDERED_SUM)
    whole = not added or not m["x"].tensor_type.dtype.is_float
    return _reduces_ones(m) if whole else "a sum starts at +0"


def _restores_dims(m: Match) -> str | None:
    node = m.node("reduce")
    axes = reduced_axes(m.graph, node)
    if axes is None or attribute(node, "keepdims"):
        return "the axes are not constant, or are kept"
    kept = tuple(1 if i in axes else d for i, d in enumerate(m["x"].shape))
    return None if kept == m.root.out().shape else "the view does not restore the reduced dims"


def _keeping(m: Match, r: Editor) -> Value:
    node = m.node("reduce")
    inputs = [m["x"], *m.graph.inputs_of(node)[1:]]
    return r.node(node.op, inputs, {**node.attrs, "keepdims": 1}).out()


def _is_mean(m: Match) -> str | None:
    x, node, factor = m["x"], m.node("reduce"), splat(m["c"])
    axes = reduced_axes(m.graph, node)
    sizes = [d for d in (x.shape[a] for a in axes or ()) if isinstance(d, int)]
    if not axes or len(sizes) != len(axes):
        return "the number of elements is not known"
    count = prod(sizes)
    if x.dtype not in ("float32", "float64"):
        return "not float32 or float64"
    if not count or count & (count - 1) or factor != 1 / count:
        return "the factor is not one over the number of elements, or is rounded"
    return None


def _mean(m: Match, r: Editor) -> Value:
    node = m.node("reduce")
    inputs = [m["x"], *m.graph.inputs_of(node)[1:]]
    return r.node("ReduceMean", inputs, dict(node.attrs)).out()


RULES = (
    Rule(
        "reduce-ones",
        Op(_PLAIN, Var("x"), rest=True),
        lambda m, _: m["x"],
        _picks_ones,
        claim=moved("reduce(x, axes of size 1) = x, no sum of floats"),
    ),
    Rule(
        "sum-ones",
        Op(_PLAIN, Var("x"), rest=True),
        lambda m, _: m["x"],
        _sums_ones,
        claim=rounds(
            "sum(x, axes of size 1) = x, and mean", "0 ulp; -0 may have been +0", Family.ELEMENTWISE
        ),
    ),
    Rule(
        "reduce-keeping",
        Op("kiln.Reshape", Op(_ANY, Var("x"), rest=True, name="reduce")),
        _keeping,
        _restores_dims,
        claim=moved("reshape(reduce(x), ones for axes) = reduce(x) keeping dims"),
    ),
    Rule(
        "mean",
        Op("Mul", Op("ReduceSum", Var("x"), rest=True, name="reduce"), Const("c")),
        _mean,
        _is_mean,
        claim=proved("sum(x) * (1/n) = mean(x), n a power of two", Family.OTHER),
    ),
)
