"""Pointwise convolutions as 1-D ones: the image becomes one long row."""

from __future__ import annotations

from ...ir.dims import Dim
from ...ir.graph import Graph, Node
from ...ir.registry import attribute, has_trait
from ...ir.types import TensorType, Type

_SPATIAL = slice(2, 4)


def flatten_pointwise(region: Graph) -> Graph:
    """A region around a 1x1, stride 1 ``kiln.ConvBlocked`` with its two spatial dims merged.

    Memory is the same, so the kernel's callers need not know. Other regions come back as they are.
    """
    anchors = [n for n in region.nx if n.key == "kiln.ConvBlocked"]
    if len(anchors) != 1 or not _is_pointwise(anchors[0]):
        return region
    image = anchors[0].out().shape[_SPATIAL]
    if not all(_mergeable(region, n, image) for n in region.nx if n.op != "Output"):
        return region
    merged = region.copy()
    for node in merged.nx:
        for out in node.outputs:
            out.type = None if out.type is None else _merge(out.type)
        if node.key == "kiln.ConvBlocked":
            node.attrs.update(kernel_shape=(1,), strides=(1,), pads=(0, 0), dilations=(1,))
    return merged


def _is_pointwise(conv: Node) -> bool:
    window = (attribute(conv, "kernel_shape"), attribute(conv, "strides"), attribute(conv, "pads"))
    return window == ((1, 1), (1, 1), (0, 0, 0, 0))


def _mergeable(region: Graph, node: Node, image: tuple[Dim, ...]) -> bool:
    if node.key != "kiln.ConvBlocked" and node.op != "Input" and not has_trait(node, "elementwise"):
        return node.op == "Constant" and node.out().tensor_type.numel == 1
    if node.op == "Input" and all(
        n.key == "kiln.ConvBlocked" and i > 0 for n, i in region.uses(node.out())
    ):
        return True
    return all(
        v.rank == 5 and v.shape[_SPATIAL] in (image, (1, 1)) or v.tensor_type.numel == 1
        for v in node.values
    )


def _merge(t: Type) -> Type:
    """[.., H, W, c] -> [.., H*W, c] for activations, biases and packed weights."""
    if not isinstance(t, TensorType) or t.shape is None or len(t.shape) < 5:
        return t
    if len(t.shape) == 5:
        n, blocks, h, w, block = t.shape
        return t.with_shape((n, blocks, h * w, block))
    # weights [g, Mt, Cb, KH, KW, c, t]: the kernel is 1x1
    return t.with_shape((*t.shape[:3], 1, *t.shape[5:]))
