"""Which template computes a region, or why none does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx

from ...ir.elementwise import is_elementwise
from ...ir.graph import Graph, Node, Value
from ...ir.hardware import Hardware
from ...ir.registry import has_trait
from ...ir.traits import Trait
from .registry import Template

SPREAD = "kiln.DepthToSpaceBlocked"


@dataclass(frozen=True)
class TemplateChoice:
    """The node whose template computes the region; None for the generic schedule.

    ``reason`` says why there is no template, if that makes the region slow, because it holds sums
    of products. ``plain`` is the node that computes them, if its op has no template at all.
    """

    anchor: Node | None
    reason: str = ""
    plain: Node | None = None


def choose_template(
    graph: Graph, templates: Mapping[str, Template], hardware: Hardware
) -> TemplateChoice:
    """The region's one node with a template, if all other nodes can be its prologue or epilogue.

    ``hardware`` says whether they can. A template that stores its outputs itself has no epilogue.
    """
    having = [n for n in graph.nx if n.key in templates]
    objections = {n: templates[n.key].objection(graph, n) for n in having}
    found = [n for n in having if objections[n] is None]
    if len(found) != 1:
        return _without(graph, found, objections)
    (anchor,) = found
    reason = _misfit(graph, anchor, templates[anchor.key].stores, hardware)
    return TemplateChoice(anchor) if reason is None else TemplateChoice(None, reason)


def _without(
    graph: Graph, found: list[Node], objections: Mapping[Node, str | None]
) -> TemplateChoice:
    """The choice of the generic schedule, with the reason if the region holds sums of products."""
    if found:
        return TemplateChoice(None, f"it holds several: {', '.join(n.key for n in found)}")
    for node in graph.nodes:
        if has_trait(node, Trait.CONTRACTION):
            objection = objections.get(node)
            if objection is not None:
                return TemplateChoice(None, objection)
            reason = f"there is no template for {_described(graph, node)}"
            return TemplateChoice(None, reason, node)
    return TemplateChoice(None)


def _described(graph: Graph, node: Node) -> str:
    """The op, and the element types that it multiplies."""
    types = dict.fromkeys(v.dtype for v in product_operands(graph, node))
    return f"{node.key} of {' and '.join(types)}"


def product_operands(graph: Graph, node: Node) -> list[Value]:
    """The two that a sum of products multiplies: the first input, and the next that is a matrix or
    more, as scales and zero points may stand between."""
    first, *others = [v for v in graph.inputs_of(node) if v is not None]
    matrices = [v for v in others if v.rank > 1]
    return [first, *(matrices or others)[:1]]


def _misfit(graph: Graph, anchor: Node, stores: bool, hardware: Hardware) -> str | None:
    """Why the template of ``anchor`` cannot compute the region, or None."""
    others = [v.node for v in graph.outputs if v.node is not anchor]
    after = set() if stores else nx.descendants(graph.nx, anchor) - {graph.sink}
    for node in (n for n in graph.topological() if n in after):
        moved = movement_before(graph, anchor, node)
        reason = hardware.fusible_epilogue(graph, anchor, moved, node)
        if reason is not None:
            return f"{node.key} does not join {anchor.key}: {reason}"
    apart = [n.key for n in others if n not in after]
    if apart:
        return f"it has a result besides that of {anchor.key}: {apart[0]}"
    several = not stores and len(anchor.outputs) != 1
    return f"{anchor.key} has several results" if several else None


def movement_before(graph: Graph, anchor: Node, node: Node) -> Node | None:
    """The movement op on the way from ``anchor`` to ``node``, if there is one."""
    between = nx.ancestors(graph.nx, node) & nx.descendants(graph.nx, anchor)
    moves = (n for n in between if not is_elementwise(n, graph.inputs_of(n)))
    return next(moves, None)


__all__ = ["SPREAD", "TemplateChoice", "choose_template", "movement_before", "product_operands"]
