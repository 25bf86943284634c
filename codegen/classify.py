"""How each node runs: as a kernel, as a view of its input's memory, or as a host function."""

from __future__ import annotations

from ..ir.graph import Graph, Node, Value
from ..ir.registry import has_trait
from ..ir.traits import Trait
from ..ir.types import TensorType, Type


def is_view(graph: Graph, node: Node) -> bool:
    """Does the node's result share the memory of its first input, perhaps under another shape?

    Tensors of strings have no memory that a shape could be laid over.
    """
    same = has_trait(node, Trait.ALIAS)
    if not same and not has_trait(node, Trait.VIEW):
        return False
    source = graph.input(node, 0)
    if source is None:
        return False
    string = isinstance(source.type, TensorType) and source.type.dtype.name == "string"
    return same or not string


def is_host(graph: Graph, node: Node) -> bool:
    """Does this node run as a host function (host op, or values that are not plain tensors)?"""
    if has_trait(node, Trait.HOST):
        return True
    if is_view(graph, node):
        return False
    types: list[Type | None] = [o.type for o in node.outputs]
    types += [None if v is None else v.type for v in graph.inputs_of(node)]
    return any(
        t is not None and (not isinstance(t, TensorType) or t.dtype.name == "string") for t in types
    )


def is_opaque(graph: Graph, node: Node) -> bool:
    """Is it control flow or a host function, which may keep its inputs or return them?"""
    return has_trait(node, Trait.CONTROL_FLOW) or is_host(graph, node)


def view_root(graph: Graph, value: Value) -> Value:
    """The value whose memory ``value`` shares."""
    while value.node.key not in ("Input", "Constant") and is_view(graph, value.node):
        source = graph.input(value.node, 0)
        assert source is not None
        value = source
    return value


def used_values(graph: Graph, node: Node) -> list[Value]:
    """The node's outputs that have uses."""
    return [v for v in node.values if graph.uses(v)]
