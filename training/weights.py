"""Which constants of a graph are trained, and how they are read and written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from ..ir.graph import Graph, Node, Value
from ..ir.registry import attribute
from ..ir.types import DType
from .emit import Tensor, emission
from .ops.quantize import aligned, codes
from .tensors import to_array, to_tensor

Choose = Callable[[str, np.ndarray], bool]
"""Is the constant of this name and value trained?"""


@dataclass(frozen=True)
class Quantizer:
    """How a weight is held as integer codes: the parameters of the ``DequantizeLinear`` behind it.

    What is trained is the float weight; the graph computes with its codes.
    """

    scale: Tensor
    zero: Tensor | None
    element: DType
    axis: int
    block: int

    def codes(self, weight: Tensor) -> Tensor:
        """The codes of a weight, as floats that gradients pass through."""
        scale, zero = self.scale.to(weight.device), self.zero
        zero = None if zero is None else zero.to(weight.device)
        return codes(weight, scale, zero, self.element, self.axis, self.block)

    def weight(self, held: Tensor) -> Tensor:
        """The float weight that codes stand for."""
        x = held.to(self.scale.dtype)
        if self.zero is not None:
            x = x - aligned(self.zero, x, self.axis, self.block).to(x.dtype)
        return x * aligned(self.scale, x, self.axis, self.block)


@dataclass(frozen=True)
class Weight:
    """A trained constant: its node, and how it is quantized, if it is."""

    node: Node
    quantizer: Quantizer | None
    behind: Value
    """The float value that the graph computes with: that of the node, or what dequantizes it."""

    @property
    def name(self) -> str:
        """The constant's name."""
        return self.node.outputs[0].name

    def initial(self) -> Tensor:
        """The float weight that the graph has."""
        held = to_tensor(array_of(self.node))
        return held if self.quantizer is None else self.quantizer.weight(held)

    def value(self, parameter: Tensor) -> Tensor:
        """What the graph computes with."""
        return parameter if self.quantizer is None else self.quantizer.codes(parameter)

    def array(self, parameter: Tensor) -> np.ndarray:
        """The constant to write back, of the type that the graph holds."""
        old = array_of(self.node)
        with torch.no_grad():
            new = to_array(self.value(parameter))
        return np.ascontiguousarray(new.astype(old.dtype))


def array_of(node: Node) -> np.ndarray:
    """The array of a ``Constant``."""
    value = node.attrs["value"]
    assert isinstance(value, np.ndarray)
    return value


def weights_of(graph: Graph, trainable: Choose | None = None) -> list[Weight]:
    """The trained constants of a graph, in its order of nodes.

    ``trainable`` chooses among the float32 constants and the quantized weights; by default those
    are trained that stand where ops say they have weights: factors, biases, scales of
    normalisations, tables. Constants in bodies of control flow are not trained.
    """
    found = []
    for node in graph.topological_all():
        if node.key != "Constant" or not isinstance(node.attrs.get("value"), np.ndarray):
            continue
        quantizer = _quantizer(graph, node.out())
        if quantizer is None and (node.out().dtype != "float32" or not node.out().rank):
            continue
        behind = list(graph.consumers(node))[0].out() if quantizer else node.out()
        chosen = (
            _is_weight(graph, behind, array_of(node))
            if trainable is None
            else trainable(node.outputs[0].name, array_of(node))
        )
        if chosen:
            found.append(Weight(node, quantizer, behind))
    return found


def _is_weight(graph: Graph, value: Value, array: np.ndarray) -> bool:
    """Does an op that uses the value say that it is a weight?"""
    is_vector = sum(n > 1 for n in array.shape) == 1
    for user, index in graph.uses(value):
        known = emission(user.key)
        if known is not None and index in known.weights and (is_vector or not known.vectors):
            return True
    return False


def _quantizer(graph: Graph, value: Value) -> Quantizer | None:
    """How the constant is dequantized, by one node with constant parameters; else None."""
    users = graph.uses(value)
    if not value.tensor_type.dtype.is_integer or not value.rank or len(users) != 1:
        return None
    node, index = users[0]
    if index != 0 or node.key != "DequantizeLinear":
        return None
    parameters = [graph.input(node, i) for i in (1, 2)]
    if any(p is not None and p.constant is None for p in parameters):
        return None
    scale, zero = (None if p is None or p.constant is None else to_tensor(p.constant)
                   for p in parameters)  # fmt: skip
    if scale is None or scale.dtype != torch.float32:
        return None
    return Quantizer(
        scale, zero, value.tensor_type.dtype,
        int(attribute(node, "axis")), int(attribute(node, "block_size") or 0),
    )  # fmt: skip


__all__ = ["Choose", "Quantizer", "Weight", "array_of", "weights_of"]
