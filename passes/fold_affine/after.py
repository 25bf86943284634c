"""Constants applied to the result of a linear op.

s * linear(x, W, b) = linear(x, s*W, s*b)    linear(x, W, b) + t = linear(x, W, b + t)
-linear(x, W, b) = linear(x, -W, -b)
s * (y + t) = s*y + s*t                      where y is the result of a MatMul, which has no bias
"""

from __future__ import annotations

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Value
from ..claims import AFFINE, rounds
from ..pattern import Const, Match, Op, Rule, Var
from ..precision import narrowed
from .linear import OPS, Channels, Linear, channels_of


def _applies(m: Match) -> str | None:
    """An objection unless the constant is one for each channel of the result."""
    found = channels_of(m.graph, m.node("linear"))
    if isinstance(found, str):
        return found
    y, array = m.node("linear").out(), m["c"].constant
    assert array is not None
    if m.root.out().type != y.type:
        return "the constant broadcasts the result"
    if found.over_outputs(array, y.rank) is None:
        return "the constant varies within a channel"
    if m.root.op != "Mul" and not found.takes_bias:
        return "the op has no bias"
    return None


def _fold(m: Match, r: Editor) -> Value | None:
    found, array = channels_of(m.graph, m.node("linear")), m["c"].constant
    assert isinstance(found, Channels) and array is not None
    c = found.over_outputs(array, m.node("linear").out().rank)
    assert c is not None
    linear = Linear(m.graph, found)
    if m.root.op == "Mul":
        linear.scale_outputs(c)
    else:
        linear.shift_outputs(-c if m.root.op == "Sub" else c)
    return linear.build(r, m["x"])


def _negatable(m: Match) -> str | None:
    found = channels_of(m.graph, m.node("linear"))
    return found if isinstance(found, str) else None


def _negate(m: Match, r: Editor) -> Value | None:
    found = channels_of(m.graph, m.node("linear"))
    assert isinstance(found, Channels)
    linear = Linear(m.graph, found)
    linear.scale_outputs(np.full(found.outputs, -1.0))
    return linear.build(r, m["x"])


def _distribute(m: Match, r: Editor) -> Value | None:
    """``s * (linear(x, W) + t)`` as ``linear(x, s*W) + s*t``."""
    found, s, t = channels_of(m.graph, m.node("linear")), m["s"].constant, m["t"].constant
    assert isinstance(found, Channels) and s is not None and t is not None
    factors = found.over_outputs(s, m.node("linear").out().rank)
    assert factors is not None
    linear = Linear(m.graph, found)
    linear.scale_outputs(factors)
    scaled = linear.build(r, m["x"])
    with np.errstate(all="ignore"):
        shift = narrowed(s.astype(np.float64) * t.astype(np.float64), t.dtype, True)
    if scaled is None or shift is None:
        return None
    return r.op("Add", scaled, r.constant(shift))


def _distributes(m: Match) -> str | None:
    found = channels_of(m.graph, m.node("linear"))
    if isinstance(found, str):
        return found
    s, y = m["s"].constant, m.node("linear").out()
    assert s is not None
    if found.over_outputs(s, y.rank) is None or m.root.out().type != y.type:
        return "the factor varies within a channel"
    return None


_LINEAR = Op(OPS, Var("x"), Const(), name="linear", rest=True)

RULES = (
    Rule(
        "affine-after",
        Op("Mul|Add|Sub", _LINEAR, Const("c")),
        _fold,
        _applies,
        claim=rounds("s * linear(x, W, b) + t = linear(x, s*W, s*b + t)", AFFINE),
    ),
    Rule(
        "negative",
        Op("Neg", _LINEAR),
        _negate,
        _negatable,
        claim=rounds(
            "-linear(x, W, b) = linear(x, -W, -b)", "0 ulp; a zero may have the other sign"
        ),
    ),
    Rule(
        "scale-bias",
        Op(
            "Mul",
            Op("Add", Op("MatMul", Var("x"), Const("c"), name="linear"), Const("t")),
            Const("s"),
        ),
        _distribute,
        _distributes,
        claim=rounds("s * (x W + t) = x (s*W) + s*t", AFFINE),
    ),
)
