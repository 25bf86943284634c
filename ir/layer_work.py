"""What a layer's time depends on: the work of a convolution or product by constant weights."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from .choices import KernelShape, ProductShape
from .costs import USUAL, usual
from .graph import Graph, Node, Value
from .registry import attribute
from .short_sums import sums_are_short
from .windows import ConvShape, conv_window


@dataclass(frozen=True)
class LayerWork:
    """The ``shape`` of the sums of one image, so many ``images``, and elements of the operand that
    a run ``read`` s and of the ``weights``.

    What is written counts for the layer that reads it. ``short_sums`` says so of the sums of a
    convolution once its filters are bytes (see :mod:`.short_sums`).
    """

    shape: KernelShape
    images: int
    read: int
    weights: int
    short_sums: bool = False

    @property
    def is_integer(self) -> bool:
        """Are the operands 8-bit integers?"""
        if isinstance(self.shape, ConvShape):
            return self.shape.integer
        return self.shape.operand != "float32"

    @property
    def written(self) -> int:
        """Elements of the result."""
        shape = self.shape
        if isinstance(shape, ConvShape):
            image = prod(usual(d) for d in shape.image if d is not None)
            return self.images * shape.group * shape.filters * image
        return (USUAL if shape.rows is None else shape.rows) * shape.columns

    def in_bytes(self) -> LayerWork:
        """The same layer of 8-bit integers."""
        if isinstance(self.shape, ConvShape):
            shape = replace(self.shape, integer=True, short_sums=self.short_sums)
            return replace(self, shape=shape)
        return replace(self, shape=replace(self.shape, operand="uint8", weight="int8"))


def layer_work(graph: Graph, node: Node) -> LayerWork | None:
    """The work of a ``Conv``, ``MatMul`` or ``Gemm`` of float32 by weights that are constant, or
    dequantized constants.

    None for other nodes, and where the rank is not known. Open sizes count as
    :data:`.costs.USUAL`.
    """
    x, w = [*graph.inputs_of(node), None, None][:2]
    weights = None if w is None else _stored(graph, w).constant
    if x is None or weights is None or x.type is None or x.shape is None:
        return None
    if x.dtype != "float32" or not x.shape:
        return None
    if node.key == "Conv":
        return _conv(graph, node, weights)
    plain = node.key == "MatMul" or node.key == "Gemm" and not attribute(node, "transA")
    if not plain or weights.ndim != 2:
        return None
    inner = usual(x.shape[-1])
    rows = prod(usual(d) for d in x.shape[:-1])
    columns = weights.size // max(inner, 1)
    return LayerWork(ProductShape(rows, columns, inner), 1, rows * inner, weights.size)


def _stored(graph: Graph, weights: Value) -> Value:
    """What a DequantizeLinear that gives weights reads; other weights as they are."""
    is_restored = weights.node.key == "DequantizeLinear"
    return graph.required_inputs(weights.node)[0] if is_restored else weights


def _conv(graph: Graph, node: Node, weights: np.ndarray) -> LayerWork:
    (x, _w, *_), y = graph.required_inputs(node), node.out()
    filters, channels, *kernel = weights.shape
    group = int(attribute(node, "group"))
    window = conv_window(node, x.shape[2:], tuple(kernel))
    image = tuple(usual(d) for d in y.shape[2:])
    shape = ConvShape(
        channels, filters // group, group, tuple(kernel), window.strides, window.dilations, image,
        False,
    )  # fmt: skip
    read = prod(usual(d) for d in x.shape)
    short = sums_are_short(_as_bytes(weights))
    return LayerWork(shape, usual(x.shape[0]), read, weights.size, short)


def _as_bytes(filters: np.ndarray) -> np.ndarray:
    """Filters ``[M, ..]`` scaled so that the largest weight of each is 127, float64."""
    rows = filters.reshape(len(filters), prod(filters.shape[1:])).astype(np.float64)
    peaks = np.abs(rows).max(axis=1, keepdims=True, initial=0)
    found: np.ndarray = rows * (127 / np.where(peaks > 0, peaks, 1.0))
    return found


__all__ = ["LayerWork", "layer_work"]
