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
    """What part an operation may play in a region.

    - ``ANCHOR`` (heavy) starts a region.
    - ``ELEMENTWISE`` and ``MOVE`` (a transpose, a slice ...) join one.
    - ``SOURCE`` (a gather ...) joins the region of its consumers, but nothing joins in front of it:
      its inputs are stored first, since it may read an element many times.
    - ``JOIN`` (``Concat``) is the last operation of a region; each operand is computed once, into
      its part of the result.
    - ``VIEW`` joins only between other operations of a region.
    - ``ALONE`` is never in a region.
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
    """The part that ``node`` may play, by its op's traits and the types of its values."""
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
    """Is no result but the first used?"""
    return not any(graph.uses(v) for v in node.values[1:])


def _plain(t: Type | None) -> bool:
    """Is it a tensor of numbers with a known rank?"""
    return isinstance(t, TensorType) and t.shape is not None and t.dtype.kind in "fiub"


def _sizes_depend_on_data(node: Node) -> bool:
    """Does the node introduce a symbol for a size of its result?"""
    types = [o.type for o in node.outputs]
    return any(
        own_symbol(d, node) is not None
        for t in types
        if isinstance(t, TensorType)
        for d in t.shape or ()
    )


__all__ = ["Kind", "classify"]
