"""Zero points that com.microsoft's QLinear ops leave out in the middle of their inputs are 0."""

from __future__ import annotations

import numpy as np

from ..ir.types import to_numpy_dtype
from .node import OnnxNode
from .scope import Scope

_HOMES = {
    "QLinearAdd": {2: 0, 5: 3},
    "QLinearMul": {2: 0, 5: 3},
    "QLinearLeakyRelu": {2: 0},
    "QLinearSigmoid": {2: 0},
    "QLinearSoftmax": {2: 0},
    "QLinearAveragePool": {2: 0},
}
"""By op: which input is a zero point, and which one it belongs to."""


def fill_zero_points(node: OnnxNode, scope: Scope) -> None:
    """Give a QLinear node a zero for each zero point that it omits."""
    if node.domain != "com.microsoft":
        return
    for i, home in _HOMES.get(node.op, {}).items():
        data = node.inputs[home] if home < len(node.inputs) else None
        if i < len(node.inputs) and node.inputs[i] is None and data is not None:
            zero = np.zeros((), to_numpy_dtype(data.dtype))
            title = f"{scope.prefix}{node.name}/zero_{i}"
            node.inputs[i] = scope.builder.constant(zero, title)
