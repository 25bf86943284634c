"""GELU.

    exact: x * (1 + erf(x / sqrt 2)) / 2
    tanh:  x * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3))) / 2

Source: Hendrycks and Gimpel, "Gaussian Error Linear Units"; ONNX Gelu (opset 20).
"""

from __future__ import annotations

import math

from ...ir.edit import Editor
from ...ir.graph import Value
from ..claims import ACTIVATION, Family, rounds
from ..pattern import Const, Either, Match, Op, Pattern, Replace, Rule, Var
from .common import product

_X = Var("x")
_HALF = Const(value=0.5)
_ONE = Const(value=1.0)
_ROOT = math.sqrt(2.0)
_SLOPE = math.sqrt(2.0 / math.pi)

_ERF = Op(
    "Erf",
    Either(Op("Mul", _X, Const(value=math.sqrt(0.5))), Op("Div", _X, Const(value=_ROOT))),
)
_SQUARE = Op("Mul", _X, _X)
_C = Const(value=0.044715)
_CUBIC = Either(
    Op("Mul", Op("Pow", _X, Const(value=3.0)), _C),
    Op("Mul", Op("Mul", _SQUARE, _X), _C),
    Op("Mul", Op("Mul", _SQUARE, _C), _X),
    Op("Mul", Op("Mul", Op("Mul", _X, _C), _X), _X),
    Op("Mul", Op("Mul", _X, _C), _SQUARE),
)
_INNER = Either(
    Op("Mul", Op("Add", _X, _CUBIC), Const(value=_SLOPE)),
    *(
        Op("Mul", Op("Mul", _X, Const(value=_SLOPE)), Op("Add", part, _ONE))
        for part in (Op("Mul", Op("Mul", _X, _C), _X), Op("Mul", _SQUARE, _C))
    ),
    Op(
        "Mul",
        _X,
        Op(
            "Add",
            Op("Mul", _SQUARE, Const(value=0.044715 * _SLOPE)),
            Const(value=_SLOPE),
        ),
    ),
)


_PARTS = {"none": "erf(x / sqrt 2)", "tanh": "tanh(sqrt(2/pi) * (x + 0.044715 x^3))"}


def _gelu(approximate: str) -> Replace:
    def replace(m: Match, r: Editor) -> Value:
        return r.op("Gelu", m["x"], approximate=approximate)

    return replace


def _rules(name: str, part: Pattern) -> list[Rule]:
    gate = Op("Add", part, _ONE)
    # Half may stand inside: 0.5 + 0.5 * erf.
    folded = Op("Add", Op("Mul", part, _HALF), _HALF)
    trees = [*product(_X, gate, _HALF), Op("Mul", _X, folded)]
    claim = rounds(f"x * (1 + {_PARTS[name]}) / 2 = gelu(x)", ACTIVATION, Family.ELEMENTWISE)
    return [Rule(f"gelu-{name}", tree, _gelu(name), claim=claim) for tree in trees]


RULES = (*_rules("none", _ERF), *_rules("tanh", Op("Tanh", _INNER)))
