"""Finds the constant weights of an operation.

They may be stored in fewer bits, behind Cast, Mul or DequantizeLinear, or behind a Transpose: those
are applied to the constant, or become a scale of the result.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...ir.graph import Graph, Node, Value
from ...ir.registry import attribute

_ONE = np.ones((), np.float32)


@dataclass(frozen=True)
class Weights:
    """The matrix or kernel ``array * scale``; ``array`` is float32, of 16-bit floats, or int8.

    ``scale`` has one element or broadcasts against ``array``; it is 1 for floats. Equal ``key``
    means equal weights.
    """

    array: np.ndarray
    scale: np.ndarray
    name: str
    key: tuple[object, ...]

    def transposed(self) -> Weights:
        """The weights of the transposed matrix."""
        return replace(self, array=self.array.T, scale=self.scale.T, key=(*self.key, "T"))

    def scaled(self, factor: np.ndarray) -> Weights | None:
        """The weights of a float32 matrix times one number.

        None where an element would overflow, or underflow below the least normal number, where
        floats lose digits.
        """
        if np.all(factor == 1):
            return self
        with np.errstate(all="ignore"):
            array = self.array * factor
        size, tiny = np.abs(array), np.finfo(np.float32).tiny
        if not np.all(np.isfinite(array) & ((size >= tiny) | (self.array == 0))):
            return None
        return replace(self, array=array, key=(*self.key, float(factor.flat[0])))


def find_weights(graph: Graph, value: Value) -> Weights | None:
    """The constant behind a value; None where it is not one, or of another kind."""
    array = value.constant
    if array is not None:
        fits = array.dtype == np.float32
        return Weights(array, _ONE, value.name, (value,)) if fits else None
    node = value.node
    if node.key == "DequantizeLinear":
        return _dequantized(graph, node)
    if node.key == "Mul":
        return _multiplied(graph, node)
    if node.key == "Transpose":
        source = graph.input(node, 0)
        inner = find_weights(graph, source) if source is not None and source.rank == 2 else None
        swapped = attribute(node, "perm") in (None, (1, 0))
        return inner if inner is None or not swapped else inner.transposed()
    return _converted(graph, value)


def _converted(graph: Graph, value: Value) -> Weights | None:
    """Cast(constant of int8 or of 16-bit floats)."""
    node = value.node
    source = graph.input(node, 0) if node.key == "Cast" else None
    if source is None or value.dtype != "float32":
        return None
    array = source.constant
    if array is None or source.dtype not in ("int8", "float16", "bfloat16"):
        return None
    return Weights(array, _ONE, source.name, (source,))


def _multiplied(graph: Graph, node: Node) -> Weights | None:
    """Cast(int8 constant) times a constant."""
    a, b = graph.required_inputs(node)
    for data, factor in ((a, b), (b, a)):
        found = _converted(graph, data)
        scale = factor.constant
        if found is not None and scale is not None and node.out().shape == data.shape:
            shape = (1,) * (found.array.ndim - scale.ndim) + scale.shape
            return replace(found, scale=scale.reshape(shape), key=(node,))
    return None


def _dequantized(graph: Graph, node: Node) -> Weights | None:
    """DequantizeLinear of an int8 constant whose zero points are all zero."""
    data, scale, zero = [*graph.inputs_of(node), None][:3]
    array = None if data is None else data.constant
    if data is None or array is None or scale is None or scale.constant is None:
        return None
    if array.dtype != np.int8 or attribute(node, "block_size") or scale.dtype != "float32":
        return None
    if zero is not None and (zero.constant is None or np.any(zero.constant)):
        return None
    factor = scale.constant
    if factor.size > 1:
        shape = [1] * array.ndim
        shape[int(attribute(node, "axis")) % array.ndim] = factor.size
        factor = factor.reshape(shape)
    return Weights(array, factor, data.name, (node,))
