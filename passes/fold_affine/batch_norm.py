"""Batch norm at inference: y = scale * (x - mean) / sqrt(var + epsilon) + bias = s*x + t.

Source: ONNX BatchNormalization (opset 15), ``training_mode`` 0.
"""

from __future__ import annotations

import numpy as np

from ...ir.graph import Value
from ..pattern import Const, Match, Op, Rule, Var
from ..rewriter import Rewriter

_PATTERN = Op(
    "BatchNormalization",
    Var("x"), Const("scale"), Const("bias"), Const("mean"), Const("var"),
    name="bn",
)  # fmt: skip


def _at_inference(m: Match) -> str | None:
    return "it is in training mode" if m.attr("bn", "training_mode") else None


def _affine(m: Match, r: Rewriter) -> Value:
    scale, bias, mean, var = (_wide(m[n]) for n in ("scale", "bias", "mean", "var"))
    s = scale / np.sqrt(var + float(m.attr("bn", "epsilon")))
    t = bias - mean * s
    x = m["x"]
    kind = r.scalar(0, x).constant.dtype  # type: ignore[union-attr]
    shape = (-1, *(1,) * (x.rank - 2))
    scaled = r.op("Mul", x, r.constant(s.astype(kind).reshape(shape)))
    return r.op("Add", scaled, r.constant(t.astype(kind).reshape(shape)))


def _wide(v: Value) -> np.ndarray:
    array = v.constant
    assert array is not None
    return array.astype(np.float64)


RULES = (Rule("batch-norm", _PATTERN, _affine, _at_inference),)
