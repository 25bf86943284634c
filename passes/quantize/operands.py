"""What products multiply: integers for activations, their filters and channels, the length of
sums.
"""

from __future__ import annotations

import numpy as np

from ...ir.axes.map import Combine, Kind
from ...ir.axes.query import axes_of, factors_of, filter_axes
from ...ir.graph import Graph, Node, Value
from ...ir.hardware import Hardware
from ...ir.registry import has_trait
from ...ir.traits import Trait
from ...ir.types import TensorType
from ..fold_affine.linear import Channels, linear_form


def activation_kind(hardware: Hardware) -> str:
    """The 8-bit integers of activations that the target's dot products take."""
    layouts = hardware.layouts
    return (None if layouts is None else layouts.activation) or "uint8"


def is_float(value: Value) -> bool:
    """Is a value a float32 tensor of known rank?"""
    t = value.type
    return isinstance(t, TensorType) and t.shape is not None and t.dtype.name == "float32"


def looked_up(graph: Graph, node: Node) -> Value | None:
    """The constant table that a node picks elements of by other inputs, or None."""
    table, *places = graph.inputs_of(node) or [None]
    is_lookup = has_trait(node, Trait.PICKS) and bool(places)
    return table if is_lookup and table is not None and table.is_constant else None


def is_layer(graph: Graph, node: Node) -> bool:
    """Is a node a product, or does it look up a constant table?"""
    return has_trait(node, Trait.CONTRACTION) or looked_up(graph, node) is not None


def filter_axis(graph: Graph, node: Node, index: int) -> int | None:
    """The axis of the weights, input ``index``, that is the result's channels; None where there is
    none, or several.
    """
    axes = axes_of(graph, node)
    found = () if axes is None or index != 1 else filter_axes(axes)
    return found[-1] if found else None


def terms(graph: Graph, node: Node) -> int | None:
    """How many products a sum has; None where the weights are not constant, or have no filters."""
    value, axis = graph.input(node, 1), filter_axis(graph, node, 1)
    weights = None if value is None else value.constant
    if weights is None or axis is None or not weights.size:
        return None
    return int(weights.size // weights.shape[axis])


def linear_channels(graph: Graph, node: Node) -> Channels | None:
    """The channels of a node that is linear in its first input, with constant float32 weights; None
    for others.
    """
    weights = graph.input(node, 1)
    array = None if weights is None else weights.constant
    if not has_trait(node, Trait.CONTRACTION) or array is None or array.dtype != np.float32:
        return None
    axes, found = axes_of(graph, node), linear_form(graph, node)
    if axes is None or found is None or not array.size or not np.isfinite(array).all():
        return None
    read = [axes.factors[f] for f in factors_of((axes.operands[0] or ())[found.input_axis])]
    is_sum = all(f.combine is Combine.SUM for f in read if f.kind is Kind.REDUCED)
    return found if is_sum else None


__all__ = [
    "activation_kind", "filter_axis", "is_float", "is_layer", "linear_channels", "looked_up",
    "terms",
]  # fmt: skip
