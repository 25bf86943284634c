"""Batch norm at inference: y = scale * (x - mean) / sqrt(var + epsilon) + bias = s*x + t.

Source: ONNX BatchNormalization (opset 15), ``training_mode`` 0.
"""

from __future__ import annotations

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Value
from ...ir.types import to_numpy_dtype
from ..claims import AFFINE, rounds
from ..pattern import Const, Match, Op, Rule, Var
from ..precision import DROWNING, narrowed

_PATTERN = Op(
    "BatchNormalization",
    Var("x"), Const("scale"), Const("bias"), Const("mean"), Const("var"),
    name="bn",
)  # fmt: skip


def _at_inference(m: Match) -> str | None:
    if m.attr("bn", "training_mode"):
        return "it is in training mode"
    return None if _coefficients(m) is not None else "its factor or its shift is no normal number"


def _coefficients(m: Match) -> tuple[np.ndarray, np.ndarray] | None:
    """``s`` and ``t`` in the type of ``x``; None where that cannot hold them."""
    scale, bias, mean, var = (_wide(m[n]) for n in ("scale", "bias", "mean", "var"))
    with np.errstate(all="ignore"):
        s = scale / np.sqrt(var + float(m.attr("bn", "epsilon")))
        t = bias - mean * s
    kind = to_numpy_dtype(m["x"].dtype)
    factor, shift = narrowed(s, kind, np.abs(t) >= DROWNING), narrowed(t, kind, True)
    return None if factor is None or shift is None else (factor, shift)


def _affine(m: Match, r: Editor) -> Value:
    found, x = _coefficients(m), m["x"]
    assert found is not None
    s, t = (r.constant(c.reshape(-1, *(1,) * (x.rank - 2))) for c in found)
    return r.op("Add", r.op("Mul", x, s), t)


def _wide(v: Value) -> np.ndarray:
    array = v.constant
    assert array is not None
    return array.astype(np.float64)


RULES = (
    Rule(
        "batch-norm",
        _PATTERN,
        _affine,
        _at_inference,
        claim=rounds("scale * (x - mean) / sqrt(var + e) + bias = s*x + t", AFFINE),
    ),
)
