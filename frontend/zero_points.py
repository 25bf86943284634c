"""Zero points that com.microsoft's QLinear ops omit among their inputs become zeros."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..ir.types import to_numpy_dtype
from .node import OnnxNode
from .scope import Scope


def fill_zero_points(node: OnnxNode, zero_points: Mapping[int, int], scope: Scope) -> None:
    """Give ``node`` a zero for each of its ``zero_points`` that it omits."""
    for i, home in zero_points.items():
        data = node.inputs[home] if home < len(node.inputs) else None
        if i < len(node.inputs) and node.inputs[i] is None and data is not None:
            zero = np.zeros((), to_numpy_dtype(data.dtype))
            title = f"{scope.prefix}{node.name}/zero_{i}"
            node.inputs[i] = scope.builder.constant(zero, title)
