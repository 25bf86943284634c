"""Bounds and choices.

Clip(Clip(x, a, b), c, d) = Clip(x, clip(a, c, d), clip(b, c, d))    Relu(x) = Clip(x, 0, inf)
Clip(x, a, b) = x    where the element type reaches no further
Where(true, x, y) = x    Where(false, x, y) = y
"""

from __future__ import annotations

import math

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Value
from ...ir.types import dtype, to_numpy_dtype
from ..claims import proved
from ..pattern import Const, Match, Op, Rule, Var
from ..queries import splat

Bounds = tuple[float, float]


def bounds_of(m: Match, name: str) -> Bounds | None:
    """The constant bounds of a Clip or Relu, infinite where there is none."""
    node = m.node(name)
    if node.op == "Relu":
        return 0.0, np.inf
    inputs = [*m.graph.inputs_of(node), None, None]
    out = []
    for value, default in ((inputs[1], -np.inf), (inputs[2], np.inf)):
        number = default if value is None else splat(value)
        if number is None:
            return None
        out.append(float(number))
    return out[0], out[1]


def _clippable(m: Match) -> str | None:
    if m.root.out().dtype not in ("float32", "float64"):
        return "only float32 and float64 bounds are merged"
    if m.root.op == m.node("inner").op == "Relu":
        return "a Relu of a Relu is another rule"
    inner, outer = bounds_of(m, "inner"), bounds_of(m, "outer")
    if inner is None or outer is None:
        return "the bounds are not constant"
    if any(math.isnan(b) or b == 0 and math.copysign(1, b) < 0 for b in (*inner, *outer)):
        return "a bound is NaN or -0"
    return None


def _clip_once(m: Match, r: Editor) -> Value | None:
    first, second = bounds_of(m, "inner"), bounds_of(m, "outer")
    assert first is not None and second is not None
    low, high = (min(max(b, second[0]), second[1]) for b in first)
    kind = to_numpy_dtype(m["x"].dtype)
    ends = [r.constant(np.array(b, kind)) if np.isfinite(b) else None for b in (low, high)]
    while ends and ends[-1] is None:
        ends.pop()
    return r.op("Clip", m["x"], *ends)


def _unbounded(m: Match) -> str | None:
    bounds, t = bounds_of(m, "clip"), dtype(m["x"].dtype)
    if bounds is None:
        return "the bounds are not constant"
    low, high = -np.inf, np.inf
    if t.is_integer:
        low = -(2 ** (t.bits - 1)) if t.kind == "i" else 0
        high = low + 2**t.bits - 1
    return None if bounds[0] <= low and bounds[1] >= high else "it has bounds"


def _settled(m: Match) -> str | None:
    chosen = _chosen(m)
    if chosen is None:
        return "the condition is not one constant"
    return None if chosen.type == m.root.out().type else "the result is broadcast"


def _chosen(m: Match) -> Value | None:
    condition = splat(m["c"])
    return None if condition is None else m["x" if condition else "y"]


RULES = (
    Rule(
        "clip-clip",
        Op(
            "Clip|Relu",
            Op("Clip|Relu", Var("x"), name="inner", rest=True),
            name="outer",
            rest=True,
        ),
        _clip_once,
        _clippable,
        claim=proved("clip(clip(x, a, b), c, d) = clip(x, clip(a, c, d), clip(b, c, d))"),
    ),
    Rule(
        "clip-none",
        Op("Clip", Var("x"), name="clip", rest=True),
        lambda m, _: m["x"],
        _unbounded,
        claim=proved("clip(x, a, b) = x, a and b beyond the type"),
    ),
    Rule(
        "where-constant",
        Op("Where", Const("c"), Var("x"), Var("y")),
        lambda m, _: _chosen(m),
        _settled,
        claim=proved("where(true, x, y) = x, where(false, x, y) = y"),
    ),
)
