"""The transforms that models apply to their scores (attribute ``post_transform``).

LOGISTIC      1 / (1 + exp(-s))
SOFTMAX       exp(s - m) / sum,  m the maximum of the row
SOFTMAX_ZERO  the same, where scores near 0 count as s * exp(-m)
PROBIT        sqrt(2) * erfinv(2s - 1), with S. Winitzki's approximation of erfinv, a = 0.147
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ...ir.graph import Value
from ..emit import Emit
from ..node import OnnxNode
from .common import convert, one_of, text

_NEAR_ZERO = 1e-7
_A = 0.147


def transformed(node: OnnxNode, scores: Value, emit: Emit) -> Value:
    """The rows of ``scores`` after the node's ``post_transform``, as float32."""
    return convert(apply(text(node, "post_transform", "NONE"), scores, emit), "float32", emit)


def apply(name: str, scores: Value, emit: Emit) -> Value:
    """The transform called ``name``; raises :class:`ImportFault` for an unknown one."""
    return _TRANSFORMS[one_of("post_transform", name, tuple(_TRANSFORMS))](scores, emit)


def _softmax_zero(scores: Value, emit: Emit) -> Value:
    last = emit.ints([-1])
    top = emit("ReduceMax", scores, last, keepdims=1)
    tiny = emit("Mul", scores, emit("Exp", emit("Neg", top)))
    far = emit("Greater", emit("Abs", scores), emit.scalar(_NEAR_ZERO, scores))
    power = emit("Where", far, emit("Exp", emit("Sub", scores, top)), tiny)
    total = emit("ReduceSum", power, last, keepdims=1)
    none = emit("Equal", total, emit.scalar(0, total))
    return emit("Where", none, emit.scalar(0.5, scores), emit("Div", power, total))


def _probit(scores: Value, emit: Emit) -> Value:
    def number(value: float) -> Value:
        return emit.scalar(value, scores)

    one = number(1)
    x = emit("Sub", emit("Mul", scores, number(2)), one)
    log = emit("Log", emit("Mul", emit("Sub", one, x), emit("Add", one, x)))
    v = emit("Add", emit("Mul", log, number(0.5)), number(2 / (np.pi * _A)))
    root = emit("Sqrt", emit("Sub", emit("Mul", v, v), emit("Mul", log, number(1 / _A))))
    inverse = emit("Mul", emit("Sign", x), emit("Sqrt", emit("Sub", root, v)))
    return emit("Mul", inverse, number(np.sqrt(2)))


_TRANSFORMS: dict[str, Callable[[Value, Emit], Value]] = {
    "NONE": lambda scores, emit: scores,
    "SOFTMAX": lambda scores, emit: emit("Softmax", scores, axis=-1),
    "LOGISTIC": lambda scores, emit: emit("Sigmoid", scores),
    "SOFTMAX_ZERO": _softmax_zero,
    "PROBIT": _probit,
}
