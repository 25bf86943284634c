"""Subnormal factors become zero.

A factor below the least normal number (2^-126 in float32) makes a product of less than 2^-126 |x|:
far below the rounding of what it is added to, unless that is as small itself. Yet CPUs take a
hundred cycles and more for each such multiplication. Training with weight decay leaves such
factors, and pruning by scales of batch norms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from ..ir.graph import Graph, Node
from .base import Pass, PassContext, register_pass

_FACTORS: dict[str, tuple[int, ...]] = {
    "Mul": (0, 1),
    "MatMul": (0, 1),
    "Gemm": (0, 1),
    "Conv": (1,),
    "ConvTranspose": (1,),
    "BatchNormalization": (1,),
    "InstanceNormalization": (1,),
    "LayerNormalization": (1,),
    "RMSNormalization": (1,),
    "RNN": (1, 2),
    "GRU": (1, 2),
    "LSTM": (1, 2),
}
"""The inputs that are multiplied, by op."""

_PART = 1 << 16
"""Elements that are looked at together: large weights are not copied for it."""


@register_pass
@dataclass(frozen=True)
class Subnormals(Pass):
    """Replaces subnormal numbers in constant factors by zero; see the file's text."""

    name = "subnormals"

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        return {"flushed": sum(_flush(graph, node, i) for node, i in list(_factors(graph)))}


def _factors(graph: Graph) -> Iterator[tuple[Node, int]]:
    for node in graph.topological():
        for index in _FACTORS.get(node.key, ()):
            yield node, index


def _flush(graph: Graph, node: Node, index: int) -> bool:
    """Clear the subnormal numbers of an input; False where there are none."""
    value = graph.input(node, index)
    array = None if value is None else value.constant
    if value is None or array is None or array.dtype not in (np.float32, np.float64):
        return False
    flat = array.reshape(-1)
    parts = (flat[start : start + _PART] for start in range(0, array.size, _PART))
    if not any(_subnormal(part).any() for part in parts):
        return False
    flushed = np.where(_subnormal(array), array.dtype.type(0), array)
    graph.set_input(node, index, graph.add_constant(flushed, value.name))
    return True


def _subnormal(array: np.ndarray) -> np.ndarray:
    return (np.abs(array) < np.finfo(array.dtype).tiny) & (array != 0)
