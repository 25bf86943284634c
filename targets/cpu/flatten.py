"""1x1 convolutions as 1-D ones: the image becomes one long row.

A row of 49 positions is cut into better register tiles than 7 rows of 7.
"""

from __future__ import annotations

from functools import reduce
from operator import mul

from ...ir.dims import Dim
from ...ir.elementwise import is_elementwise, is_table
from ...ir.graph import Graph, Node
from ...ir.registry import attribute
from ...ir.types import TensorType, Type


def flatten_pointwise(region: Graph) -> Graph:
    """A region around a 1x1, stride 1 ``kiln.ConvBlocked`` with its spatial dims merged.

    The kernel reads and writes the same memory as before, so its callers see no difference. Other
    regions are returned unchanged, and so are those with an operation that distinguishes the dims.
    """
    anchors = [n for n in region.nx if n.key == "kiln.ConvBlocked"]
    if len(anchors) != 1 or not _is_pointwise(anchors[0]):
        return region
    image = anchors[0].out().shape[2:-1]
    if not all(_mergeable(region, n, image) for n in region.nx if n.key != "Output"):
        return region
    merged = region.copy()
    for node in merged.nx:
        for out in node.outputs:
            out.type = None if out.type is None else _merge(out.type, len(image))
        if node.key == "kiln.ConvBlocked":
            node.attrs.update(kernel_shape=(1,), strides=(1,), pads=(0, 0), dilations=(1,))
    return merged


def _is_pointwise(conv: Node) -> bool:
    sizes = (*attribute(conv, "kernel_shape"), *attribute(conv, "strides"))
    return conv.out().rank > 4 and all(n == 1 for n in sizes) and not any(attribute(conv, "pads"))


def _mergeable(region: Graph, node: Node, image: tuple[Dim, ...]) -> bool:
    """Does a node compute the same if the image's dims are merged in all of its values?"""
    ours = node.key == "kiln.ConvBlocked" or node.key == "Input"
    if not ours and not is_elementwise(node, region.inputs_of(node)):
        return node.key == "Constant" and node.out().tensor_type.numel == 1
    if node.key == "Input" and all(
        i > 0 and n.key == "kiln.ConvBlocked" or is_table(n, i) for n, i in region.uses(node.out())
    ):
        return True
    fitting = (image, (1,) * len(image))
    return all(
        v.rank == len(image) + 3 and v.shape[2:-1] in fitting or v.tensor_type.numel == 1
        for v in node.values
    )


def _merge(t: Type, spatial: int) -> Type:
    """Activations [N, Cb, *S, c] and weights [g, Mt, Cb, *K, c, t] with one spatial dim.

    The kernel ``K`` is a single position. Other types, such as those of biases, stay.
    """
    if not isinstance(t, TensorType) or t.shape is None or len(t.shape) < spatial + 3:
        return t
    if len(t.shape) == spatial + 3:
        positions = reduce(mul, t.shape[2:-1])
        return t.with_shape((*t.shape[:2], positions, t.shape[-1]))
    return t.with_shape((*t.shape[:3], 1, *t.shape[-2:]))
