"""``kiln.Require``: a value, where a condition that the compiled model relies on holds."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import Node
from ..registry import InferContext, op
from ..types import TensorType, Type


def _evaluate(node: Node, inputs: list[Any]) -> list[Any]:
    if not bool(np.asarray(inputs[1]).reshape(())):
        raise ValueError(f"{node.attrs['message']}, which does not hold for these inputs")
    return [inputs[0]]


@op(
    "Require", domain="kiln", arity=(2, 2), evaluate=_evaluate,
    propagate=lambda _ctx, arrays: [arrays[0]],
    doc="The first input as it is, where the second (a bool scalar) is true; elsewhere running "
    "fails, and the error starts with ``message``.",
)  # fmt: skip
def _infer_require(ctx: InferContext) -> list[Type]:
    value, condition = ctx.inputs
    if value is None or not isinstance(ctx.attr("message"), str):
        raise ctx.error("needs a value and a message")
    if not isinstance(condition, TensorType) or condition.dtype.name != "bool":
        raise ctx.error(f"the condition must be a bool scalar, not {condition}")
    if condition.rank != 0:
        raise ctx.error(f"the condition must be a bool scalar, not {condition}")
    return [value]
