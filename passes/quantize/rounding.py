"""Rounding of int8 weights by what their products read.

    W ~ s q,    q chosen for the least sum of squares of X (s q - W)

with the scale of each output channel as it is: codes make up for the errors of those before them
(:mod:`.gptq`), by the Gram matrix of the operands of the sums (:mod:`.gram`), for each group of
channels by itself.
"""

from __future__ import annotations

from enum import Enum

import numpy as np

from ...ir.graph import Graph, GraphError, Node
from ..base import PassContext
from ..fold_affine.linear import Channels
from .gptq import with_scales
from .gram import grams, sum_length
from .insert import weight_scales
from .operands import linear_channels
from .pairs import RowPairs
from .places import Places, Use
from .scaling import constant_at

_LONGEST = 8192
"""The most products in a sum whose Gram matrix is made: it takes the square of that."""


class WeightRounding(str, Enum):
    """How weights become int8 codes."""

    NEAREST = "nearest"
    GPTQ = "gptq"


def round_together(places: Places, context: PassContext) -> None:
    """Choose the codes of the products' weights, which ``places`` gets.

    They are kept in the context, where those of an earlier call are found. Warns of weights that
    stay at the nearest codes. Raises :class:`.GraphError` where there are no samples.
    """
    graph, products = places.graph, []
    for node in places.products:
        if node.name not in context.codes:
            found = _product(graph, node)
            if isinstance(found, Channels):
                products.append(found)
            else:
                context.warn(f"the weights of {node.name!r} are rounded to the nearest: {found}")
    if products and not context.data:
        raise GraphError("gptq rounds by what layers read: give sample data")
    for product, gram in zip(products, grams(graph, products, context), strict=True):
        context.codes[product.node.name] = _codes(places, product, gram)
    names = {node.name for node in places.products}
    places.codes.update({n: codes for n, codes in context.codes.items() if n in names})


def _product(graph: Graph, node: Node) -> Channels | str:
    """The channels of a product whose weights can be rounded together, or why they cannot."""
    found = linear_channels(graph, node)
    if found is None:
        return "they are not one matrix for each group"
    length = sum_length(found)
    return found if length <= _LONGEST else f"its sums of {length} products are too long"


def _codes(places: Places, product: Channels, gram: np.ndarray) -> np.ndarray:
    """Codes in the shape of the weights, int8."""
    weights = constant_at(places.graph, Use(product.node, 1))
    groups, _, outputs, positions = product.counts
    pairing = places.pairing(product.node, 1)
    pairs = None if pairing is None else RowPairs(positions, pairing.limit)
    scales = weight_scales(places.graph, product.node, 1, places).scale.reshape(-1)
    each = np.broadcast_to(scales if scales.size == 1 else scales.reshape(-1, outputs),
                           (groups, outputs))  # fmt: skip
    matrices = product.unpacked(weights).transpose(0, 1, 3, 2).reshape(groups, -1, outputs)
    codes = [with_scales(*group, pairs=pairs) for group in zip(matrices, gram, each, strict=True)]
    split = np.reshape(codes, (groups, product.counts[1], product.counts[3], outputs))
    packed = product.packed(split.transpose(0, 1, 3, 2), weights.shape)
    return np.ascontiguousarray(packed.astype(np.int8))


__all__ = ["WeightRounding", "round_together"]
