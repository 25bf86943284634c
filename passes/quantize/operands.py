"""What products multiply: the axis of their filters, and the length of their sums."""

from __future__ import annotations

from ...ir.axes.query import axes_of, filter_axes
from ...ir.graph import Graph, Node


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


__all__ = ["filter_axis", "terms"]
