"""Ops of new opsets as the older ops that they stand for, which more runtimes have."""

from __future__ import annotations

import numpy as np

from ...ir.graph import Node, Value
from ...ir.registry import attribute
from ...ir.types import to_numpy_dtype
from .scope import Exporter, Scope


def _swish(scope: Scope, node: Node, inputs: list[Value | None]) -> None:
    """``x Sigmoid(alpha x)``: Swish came with opset 24, and is recognised in this form."""
    if scope.shared.special(scope, node, inputs):
        return
    (value,), alpha = inputs, attribute(node, "alpha")
    assert value is not None
    x = scaled = scope.name(value)
    if alpha != 1:
        factor = np.asarray(alpha, to_numpy_dtype(value.tensor_type.dtype))
        scaled = scope.emit("Mul", [x, scope.tensor(factor, "alpha")])
    gate = scope.emit("Sigmoid", [scaled])
    scope.emit("Mul", [x, gate], outputs=[scope.result(node.out())], name=node.name)


FUNCTION_EXPORTERS: dict[str, Exporter] = {"Swish": _swish}

__all__ = ["FUNCTION_EXPORTERS"]
