"""The shape of a convolution or product, read from its packed node.

Tiles and algorithms are chosen by this shape and remembered for it in the database.
"""

from __future__ import annotations

from ...ir.choices import ProductShape
from ...ir.graph import Graph, Node
from ...ir.ops.blocked import blocked_conv_window
from ...ir.registry import attribute
from ...ir.types import TensorType
from ...ir.windows import ConvShape
from ..generic.registry import operand_types
from ..tir.extents import as_int, static_product

RESIDUAL, STEPS, STARTS = 3, 4, 5
"""The operands of ``kiln.ConvBlocked`` and ``kiln.MatMulPacked`` that list steps."""


def conv_shape_of(graph: Graph, node: Node) -> ConvShape:
    """That of ``kiln.ConvBlocked``."""
    x, w = operand_types(graph, node, 2)
    return conv_shape(node, x, w)


def conv_shape(node: Node, x: TensorType, w: TensorType) -> ConvShape:
    """The shape of a ``kiln.ConvBlocked`` whose operands (input and weights) have these types."""
    group, window = int(attribute(node, "group")), blocked_conv_window(node, x, w)
    channels, filters = int(attribute(node, "in_channels")), int(attribute(node, "out_channels"))
    kernel = tuple(int(k) for k in window.kernel)
    image = tuple(as_int(d) for d in node.out().shape[2:-1])
    return ConvShape(
        channels // group, filters // group, group, kernel, window.strides, window.dilations, image,
        x.dtype.is_integer,
    )  # fmt: skip


def packed_width(graph: Graph, node: Node) -> int:
    """The last dim of a node's packed weights: columns of a tile times the depth.

    Weights without columns have all steps in a list, a vector of columns each.
    """
    width = int(operand_types(graph, node, 2)[1].dims[-1])
    if width:
        return width
    listed = graph.inputs_of(node)[RESIDUAL]
    assert listed is not None
    return int(listed.shape[-1])


def product_shape_of(graph: Graph, node: Node) -> ProductShape:
    """That of ``kiln.MatMulPacked``."""
    x, w = operand_types(graph, node, 2)
    columns, inner = int(attribute(node, "columns")), int(x.dims[-1])
    rows = static_product(x.dims[:-1])
    return ProductShape(rows, columns, inner, x.dtype.name, w.dtype.name)


__all__ = ["RESIDUAL", "conv_shape", "conv_shape_of", "packed_width", "product_shape_of"]
