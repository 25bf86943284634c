"""Casts and other ops that change nothing.

Identity(x) = x    Dropout(x) = x (inference)    Cast(x, to its own type) = x
Cast(Cast(x, a), b) = Cast(x, b)    where a holds every value of x's type exactly
"""

from __future__ import annotations

from ...ir.graph import Value
from ...ir.types import DType, TensorType
from ..pattern import Match, Op, Rule, Var
from ..rewriter import Rewriter, splat

# Bits of the significand (with the hidden one) and of the exponent.
_FLOATS = {"float16": (11, 5), "bfloat16": (8, 8), "float32": (24, 8), "float64": (53, 11)}


def exactly_held(source: DType, target: DType) -> bool:
    """Can ``target`` hold every value of ``source``?"""
    if source == target or source.kind == "b" and target.kind in "iuf":
        return True
    if source.is_integer and target.is_integer:
        signed = source.kind == "i"
        if signed and target.kind == "u":
            return False
        return source.bits + (0 if signed or target.kind == "u" else 1) <= target.bits
    wide = _FLOATS.get(target.name)
    if wide is None:
        return False
    if source.is_integer:
        return source.bits - (source.kind == "i") <= wide[0]
    narrow = _FLOATS.get(source.name)
    return narrow is not None and narrow[0] <= wide[0] and narrow[1] <= wide[1]


def _x(m: Match, _: Rewriter) -> Value:
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
    return None if exactly_held(x.dtype, inner.dtype) else f"{inner.dtype} rounds {x.dtype}"


def _cast_once(m: Match, r: Rewriter) -> Value:
    return r.node("Cast", [m["x"]], dict(m.root.attrs)).out()


RULES = (
    Rule("identity", Op("Identity", Var("x")), _x),
    Rule("dropout", Op("Dropout", Var("x"), rest=True), _x, _not_dropping),
    Rule("cast-same", Op("Cast|CastLike", Var("x"), rest=True), _x, _same_type),
    Rule(
        "cast-cast",
        Op("Cast", Op("Cast", Var("x"), name="inner", shared=True)),
        _cast_once,
        _exact_inner,
    ),
)
