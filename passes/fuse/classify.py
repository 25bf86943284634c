"""What part an operation may play in a region."""

from __future__ import annotations

from enum import Enum

from ...ir.elementwise import is_elementwise
from ...ir.graph import Graph, Node
from ...ir.registry import spec
from ...ir.symbols import own_symbol
from ...ir.traits import Trait
from ...ir.types import TensorType, Type
from ..anchors import is_anchor


class Kind(Enum):
    """``ANCHOR`` starts a region; ``ELEMENTWISE`` and ``MOVE`` join one.

    ``SOURCE`` joins that of its consumers, but nothing joins in front of it; ``JOIN`` ends a
    region, each of its operands being computed once, at its place; ``VIEW`` joins one only between
    its operations; ``ALONE`` never stands in one.
    """

    ANCHOR = "anchor"
    ELEMENTWISE = "elementwise"
    MOVE = "move"
    SOURCE = "source"
    JOIN = "join"
    VIEW = "view"
    ALONE = "alone"


_BY_TRAIT = {
    Trait.VIEW: Kind.VIEW, Trait.MOVEMENT: Kind.MOVE, Trait.SOURCE: Kind.SOURCE,
    Trait.JOIN: Kind.JOIN,
}  # fmt: skip

_NEVER = frozenset({Trait.HOST, Trait.CONTROL_FLOW, Trait.STOCHASTIC})


def classify(graph: Graph, node: Node) -> Kind:
    """The part that ``node`` may play."""
    found = spec(node.key)
    if found is None or found.traits & _NEVER or not node.outputs:
        return Kind.ALONE
    if not all(_plain(o.type) for o in node.outputs):
        return Kind.ALONE
    if not all(v is None or _plain(v.node.outputs[v.index].type) for v in graph.inputs_of(node)):
        return Kind.ALONE
    if _sizes_depend_on_data(node):
        return Kind.ALONE
    if is_anchor(node):
        return Kind.ANCHOR if _one_result(graph, node) else Kind.ALONE
    if len(node.outputs) > 1:
        return Kind.ALONE
    if is_elementwise(node, graph.inputs_of(node)):
        return Kind.ELEMENTWISE
    return next((kind for trait, kind in _BY_TRAIT.items() if trait in found.traits), Kind.ALONE)


def _one_result(graph: Graph, node: Node) -> bool:
    return not any(graph.uses(v) for v in node.values[1:])


def _plain(t: Type | None) -> bool:
    return isinstance(t, TensorType) and t.shape is not None and t.dtype.kind in "fiub"


def _sizes_depend_on_data(node: Node) -> bool:
    types = [o.type for o in node.outputs]
    return any(
        own_symbol(d, node) is not None
        for t in types
        if isinstance(t, TensorType)
        for d in t.shape or ()
    )


__all__ = ["Kind", "classify"]
