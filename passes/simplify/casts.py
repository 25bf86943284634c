"""Casts and other ops that change nothing.

Identity(x) = x    Dropout(x) = x (inference)    Cast(x, to its own type) = x
Cast(Cast(x, a), b) = Cast(x, b)    where a holds every value of x's type exactly, and the cast to b
                                    depends on the value only: integers wrap around where floats
                                    are undefined, and texts differ by the type of the number
"""

from __future__ import annotations

from ...ir.edit import Editor
from ...ir.graph import Value
from ...ir.types import TensorType
from ..claims import proved
from ..pattern import Match, Op, Rule, Var
from ..precision import exactly_held
from ..queries import splat


def _x(m: Match, _: Editor) -> Value:
    return m["x"]


def _not_dropping(m: Match) -> str | None:
    if len(m.root.outputs) > 1 and m.graph.uses(m.root.out(1)):
        return "its mask is used"
    training = m.graph.input(m.root, 2)
    if training is not None and splat(training) not in (False, 0):
        return "it may run in training mode"
    return None


def _same_type(m: Match) -> str | None:
    return None if m.root.out().type == m["x"].type else "it changes the element type"


def _exact_inner(m: Match) -> str | None:
    x, inner = m["x"].type, m.node("inner").out().type
    if not isinstance(x, TensorType) or not isinstance(inner, TensorType):
        return "not a tensor"
    if not exactly_held(x.dtype, inner.dtype):
        return f"{inner.dtype} rounds {x.dtype}"
    final = m.root.out().tensor_type.dtype
    if final.kind == "s" or final.is_integer and inner.dtype.is_float:
        return f"a {x.dtype} becomes another {final} than a {inner.dtype} does"
    return None


def _cast_once(m: Match, r: Editor) -> Value:
    return r.node("Cast", [m["x"]], dict(m.root.attrs)).out()


RULES = (
    Rule("identity", Op("Identity", Var("x")), _x, claim=proved("identity(x) = x")),
    Rule(
        "dropout",
        Op("Dropout", Var("x"), rest=True),
        _x,
        _not_dropping,
        claim=proved("dropout(x) = x at inference"),
    ),
    Rule(
        "cast-same",
        Op("Cast|CastLike", Var("x"), rest=True),
        _x,
        _same_type,
        claim=proved("cast(x) = x, to the type of x"),
    ),
    Rule(
        "cast-cast",
        Op("Cast", Op("Cast", Var("x"), name="inner", shared=True)),
        _cast_once,
        _exact_inner,
        claim=proved("cast(cast(x, a), b) = cast(x, b), a holds all of x's type"),
    ),
)
