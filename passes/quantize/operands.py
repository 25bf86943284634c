"""What products multiply: integers for activations, the axis of filters, the length of sums."""

from __future__ import annotations

from ...ir.axes.query import axes_of, filter_axes
from ...ir.graph import Graph, Node, Value
from ...ir.hardware import Hardware
from ...ir.registry import has_trait
from ...ir.traits import Trait
from ...ir.types import TensorType


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


__all__ = ["activation_kind", "filter_axis", "is_float", "looked_up", "terms"]
