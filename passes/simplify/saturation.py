"""Quantisation to 8 bits moves before bounds and concatenations, which then work on integers.

Q(Clip(x, a, b)) = Clip(Q(x), Q(a), Q(b))    Q(Relu(x)) = Clip(Q(x), z)    z the zero point
Q(Concat(x, y)) = Concat(Q(x), Q(y))
Q(Clip(x, a, b)) = Q(x)                      scales by channel, where saturation implies the bounds

All are exact: a positive scale, rounding and saturation keep the order of numbers, so the bounds of
a number become those of its quantised form. Bounds that saturation implies vanish.
"""

from __future__ import annotations

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Value
from ...ir.registry import attribute
from ...ir.types import BYTES, to_numpy_dtype
from ..claims import Family, moved, rounds
from ..pattern import Match, Op, Rule, Var
from ..queries import scale_and_zero, splat
from .selection import bounds_of


def _bytes_by_one_step(m: Match) -> str | None:
    """An objection unless all elements become 8-bit integers by one scale and zero point."""
    if m.root.out().dtype not in BYTES:
        return "only 8-bit tensors are handled"
    scale, _ = scale_and_zero(m.graph, m.root)
    return None if scale.tensor_type.numel == 1 else "it has several scales"


# ---- bounds --------------------------------------------------------------------------------------


def _step(m: Match) -> tuple[np.float32, int] | None:
    """The scale and zero point of the root; None where they are not known."""
    scale, zero = scale_and_zero(m.graph, m.root)
    step, start = splat(scale), 0 if zero is None else splat(zero)
    return None if step is None or start is None else (np.float32(step), int(start))


def _cuttable(m: Match) -> str | None:
    return _bytes_by_one_step(m) or _unknown(m)


def _unknown(m: Match) -> str | None:
    """An objection where the bounds cannot be quantised here as the root would."""
    scale, _ = scale_and_zero(m.graph, m.root)
    if {m["x"].dtype, scale.dtype} != {"float32"} or m.attr("q", "precision"):
        return "only float32 is divided by float32"
    step, bounds = _step(m), bounds_of(m, "cut")
    if step is None or bounds is None:
        return "the scale, the zero point or the bounds are not constant"
    if not 0 < step[0] < np.inf or np.isnan(bounds).any():
        return "the scale or the bounds are not numbers"
    return None


def _quantized(bound: float, scale: np.float32, zero: int, limits: np.iinfo) -> int:
    """QuantizeLinear of one number, in float32."""
    with np.errstate(over="ignore"):
        steps = np.rint(np.float32(bound) / scale) + np.float32(zero)
    return int(np.clip(steps, limits.min, limits.max))


def _without_cut(m: Match, r: Editor) -> Value:
    """``x``, quantised as the root quantises."""
    parameters = m.graph.inputs_of(m.root)[1:]
    return r.node("QuantizeLinear", [m["x"], *parameters], dict(m.root.attrs)).out()


def _cut_bytes(m: Match, r: Editor) -> Value:
    """Quantise ``x`` first, and clip the integers, without bounds that saturation implies."""
    step, bounds = _step(m), bounds_of(m, "cut")
    assert step is not None and bounds is not None
    kind = to_numpy_dtype(m.root.out().dtype)
    limits = np.iinfo(kind)
    low, high = (_quantized(b, *step, limits) for b in bounds)
    q = _without_cut(m, r)
    ends = [
        r.constant(np.array(low, kind)) if low > limits.min else None,
        r.constant(np.array(high, kind)) if high < limits.max else None,
    ]
    while ends and ends[-1] is None:
        ends.pop()
    return r.op("Clip", q, *ends)


def _implied(m: Match) -> str | None:
    """An objection unless the root's saturation implies the bounds, for each of its scales."""
    scale, zero = scale_and_zero(m.graph, m.root)
    kind, bounds = m.root.out().dtype, bounds_of(m, "cut")
    if kind not in BYTES or m.attr("q", "block_size") or m.attr("q", "precision"):
        return "only 8-bit tensors with scales along an axis are handled"
    if {m["x"].dtype, scale.dtype} != {"float32"} or scale.constant is None:
        return "only float32 is divided by float32, which is constant"
    if bounds is None or np.isnan(bounds).any() or (zero is not None and zero.constant is None):
        return "the zero points or the bounds are not constant numbers"
    steps = scale.constant.ravel()
    starts = np.zeros_like(steps) if zero is None else zero.constant
    assert starts is not None
    if not np.all((steps > 0) & np.isfinite(steps)):
        return "a scale is not a positive number"
    limits = np.iinfo(to_numpy_dtype(kind))
    pairs = zip(steps, starts.ravel(), strict=True)
    codes = [[_quantized(b, s, int(z), limits) for b in bounds] for s, z in pairs]
    return None if all(c == [limits.min, limits.max] for c in codes) else "a bound is within range"


# ---- concatenations ------------------------------------------------------------------------------


def _parts(m: Match, r: Editor) -> Value:
    parameters, attrs = m.graph.inputs_of(m.root)[1:], dict(m.root.attrs)
    parts = [
        r.node("QuantizeLinear", [part, *parameters], attrs).out()
        for part in m.graph.required_inputs(m.node("concat"))
    ]
    return r.op("Concat", *parts, axis=attribute(m.node("concat"), "axis"))


_CUT = Op("Relu|Clip", Var("x"), name="cut", rest=True)
_CONCAT = Op("Concat", name="concat", rest=True)

RULES = (
    Rule(
        "quantize-cut",
        Op("QuantizeLinear", _CUT, name="q", rest=True),
        _cut_bytes,
        _cuttable,
        claim=rounds(
            "Q(clip(x, a, b)) = clip(Q(x), Q(a), Q(b))",
            "0 steps; NaN, which has no code, may become another one",
            Family.ELEMENTWISE,
        ),
    ),
    Rule(
        "quantize-implied",
        Op("QuantizeLinear", _CUT, name="q", rest=True),
        _without_cut,
        _implied,
        claim=rounds(
            "Q(clip(x, a, b)) = Q(x), where saturation implies the bounds",
            "0 steps; NaN, which has no code, may become another one",
            Family.ELEMENTWISE,
        ),
    ),
    Rule(
        "quantize-parts",
        Op("QuantizeLinear", _CONCAT, rest=True),
        _parts,
        _bytes_by_one_step,
        claim=moved("Q(concat(x, y)) = concat(Q(x), Q(y))"),
    ),
)
