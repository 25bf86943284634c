"""Root mean square normalisation over the last axes.

    y = x / sqrt(mean(x^2) + epsilon) * scale

Source: Zhang and Sennrich, "Root Mean Square Layer Normalization"; ONNX RMSNormalization
(opset 23).
"""

from __future__ import annotations

from ...ir.edit import Editor
from ...ir.graph import Value
from ..claims import NORM, rounds
from ..pattern import Const, Match, Op, Rule, Var
from ..queries import splat
from .layer_norm import core_rules, first_axis, needs_static, ones, scaled, unit_scale

_X = Var("x")
_MEAN_SQUARES = tuple(
    Op("ReduceMean", square, rest=True, attrs={"keepdims": 1}, name="variance")
    for square in (Op("Mul", _X, _X), Op("Pow", _X, Const(value=2.0)))
)


def _normalises(m: Match) -> str | None:
    axis = first_axis(m, "variance")
    return "the mean is not over last axes" if axis is None else needs_static(m["x"], axis)


def _core(m: Match, r: Editor) -> Value:
    axis, epsilon = first_axis(m, "variance"), splat(m["epsilon"])
    assert axis is not None and epsilon is not None
    scale = ones(r, m["x"], axis)
    return r.op("RMSNormalization", m["x"], scale, axis=axis, epsilon=float(epsilon))


RULES = (
    *core_rules(
        "rms-norm",
        _X,
        _MEAN_SQUARES,
        _core,
        _normalises,
        rounds("x / sqrt(mean x^2 + e) = rmsnorm(x)", NORM),
    ),
    Rule(
        "rms-norm-scale",
        Op("Mul", Op("RMSNormalization", _X, Const("scale"), name="norm"), Const("c")),
        scaled,
        unit_scale,
        claim=rounds("rmsnorm(x) * c = rmsnorm(x, c)", NORM),
    ),
)
