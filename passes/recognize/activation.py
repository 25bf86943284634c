"""Gated activations.

    Swish:       x * sigmoid(alpha * x)       (SiLU: alpha = 1; "quick" GELU: alpha = 1.702)
    HardSigmoid: clip(alpha * x + beta, 0, 1), often written clip(x + 3, 0, 6) / 6
    HardSwish:   x * clip(x / 6 + 1/2, 0, 1)
    Mish:        x * tanh(softplus(x))

Source: ONNX Swish (opset 24), HardSigmoid, HardSwish, Mish.
"""

from __future__ import annotations

from ...ir.edit import Editor
from ...ir.graph import Value
from ..claims import ACTIVATION, Family, rounds
from ..pattern import Const, Either, Match, Op, Rule, Var
from ..precision import is_number
from ..queries import splat
from .common import product

_X = Var("x")
_RELU6 = Op("Clip", Op("Add", _X, Const(value=3.0)), Const(value=0.0), Const(value=6.0))
_SIXTH = Const(value=1 / 6)


def _swish(m: Match, r: Editor) -> Value:
    scale = m.get("alpha")
    alpha = 1.0 if scale is None else splat(scale)
    assert alpha is not None
    return r.op("Swish", m["x"], alpha=float(alpha))


def _scalar(m: Match) -> str | None:
    alpha = m.get("alpha")
    return None if alpha is None or splat(alpha) is not None else "alpha is not one number"


def _single(m: Match) -> str | None:
    double = m["x"].tensor_type.dtype.name == "float64"
    return "HardSwish's slope is a float32" if double else None


def _hard_swish(m: Match, r: Editor) -> Value:
    return r.op("HardSwish", m["x"])


def _hard_sigmoid(m: Match, r: Editor) -> Value:
    return r.op("HardSigmoid", m["x"], alpha=1 / 6, beta=0.5)


def _is_sixth(value: object) -> bool:
    return isinstance(value, float) and is_number(value, 1 / 6, "float32")


_UNIT = Op(
    "Clip",
    Op("Add", Op("Mul", _X, _SIXTH), Const(value=0.5)),
    Const(value=0.0),
    Const(value=1.0),
)
_GATE = Either(
    Op("HardSigmoid", _X, attrs={"alpha": _is_sixth, "beta": 0.5}),
    _UNIT,
    Op("Mul", _RELU6, _SIXTH),
    Op("Div", _RELU6, Const(value=6.0)),
)

_HARD_SWISH = rounds("x * clip(x + 3, 0, 6) / 6 = hardswish(x)", ACTIVATION, Family.ELEMENTWISE)
_HARD_SIGMOID = rounds("clip(x + 3, 0, 6) / 6 = hardsigmoid(x)", ACTIVATION, Family.ELEMENTWISE)

RULES = (
    Rule(
        "silu",
        Op("Mul", _X, Op("Sigmoid", _X)),
        _swish,
        claim=rounds("x * sigmoid(x) = swish(x)", ACTIVATION, Family.ELEMENTWISE),
    ),
    Rule(
        "swish",
        Op("Mul", _X, Op("Sigmoid", Op("Mul", _X, Const("alpha")))),
        _swish,
        _scalar,
        claim=rounds("x * sigmoid(a*x) = swish(x, a)", ACTIVATION, Family.ELEMENTWISE),
    ),
    Rule(
        "mish",
        Op("Mul", _X, Op("Tanh", Op("Softplus", _X))),
        lambda m, r: r.op("Mish", m["x"]),
        claim=rounds("x * tanh(softplus(x)) = mish(x)", ACTIVATION, Family.ELEMENTWISE),
    ),
    *(
        Rule("hard-swish", pattern, _hard_swish, _single, claim=_HARD_SWISH)
        for pattern in (
            Op("Mul", _X, _GATE),
            *product(_X, _RELU6, _SIXTH),
            Op("Div", Op("Mul", _X, _RELU6), Const(value=6.0)),
        )
    ),
    *(
        Rule("hard-sigmoid", pattern, _hard_sigmoid, claim=_HARD_SIGMOID)
        for pattern in (Op("Mul", _RELU6, _SIXTH), Op("Div", _RELU6, Const(value=6.0)), _UNIT)
    ),
)
