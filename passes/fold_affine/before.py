"""Constants applied to the input of a linear op.

linear(s*x, W, b) = linear(x, W*s, b)    linear(x + t, W, b) = linear(x, W, b + W.t)

The second holds only where nothing is padded. Weights have to be used here only.
"""

from __future__ import annotations

from ...ir.edit import Editor
from ...ir.graph import Value
from ...ir.registry import attribute
from ..claims import AFFINE, rounds
from ..pattern import Const, Match, Op, Rule, Var
from .linear import Channels, Linear, channels_of

_OPS = "Conv|Gemm|MatMul"


def _applies(m: Match) -> str | None:
    """An objection unless the constant is one for each channel of the input."""
    if m.root.op == "Gemm" and attribute(m.root, "transA"):
        return "its input is transposed"
    found = channels_of(m.graph, m.root)
    if isinstance(found, str):
        return found
    inner, array, x = m.node("inner"), m["c"].constant, m["x"]
    assert array is not None
    if inner.out().type != x.type:
        return "the constant broadcasts the input"
    if found.over_inputs(array, x.rank) is None:
        return "the constant varies within a channel"
    return None if inner.op == "Mul" else _shift_objection(m, found)


def _shift_objection(m: Match, found: Channels) -> str | None:
    if not found.takes_bias:
        return "the op has no bias"
    if m.root.op != "Conv":
        return None
    automatic = attribute(m.root, "auto_pad") in ("SAME_UPPER", "SAME_LOWER")
    return "it pads with zeros" if automatic or any(attribute(m.root, "pads") or ()) else None


def _fold(m: Match, r: Editor) -> Value | None:
    found, array = channels_of(m.graph, m.root), m["c"].constant
    assert isinstance(found, Channels) and array is not None
    c = found.over_inputs(array, m["x"].rank)
    assert c is not None
    linear, op = Linear(m.graph, found), m.node("inner").op
    if op == "Mul":
        linear.scale_inputs(c)
    else:
        linear.shift_inputs(-c if op == "Sub" else c)
    return linear.build(r, m["x"])


RULES = (
    Rule(
        "affine-before",
        Op(_OPS, Op("Mul|Add|Sub", Var("x"), Const("c"), name="inner"), Const(), rest=True),
        _fold,
        _applies,
        claim=rounds("linear(s*x + t, W, b) = linear(x, W*s, b + W t)", AFFINE),
    ),
)
