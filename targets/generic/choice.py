"""Which template computes a region, or why none does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import networkx as nx

from ...ir.elementwise import is_elementwise
from ...ir.graph import Graph, Node
from ...ir.registry import has_trait
from ...ir.traits import Trait
from .registry import Template

SPREAD = "kiln.DepthToSpaceBlocked"


@dataclass(frozen=True)
class TemplateChoice:
    """The node whose template computes the region, or None: the generic schedule does.

    ``reason`` says why, where that costs: the region holds sums of products. ``plain`` is the node
    that computes them, where no template is for its op.
    """

    anchor: Node | None
    reason: str = ""
    plain: Node | None = None


def choose_template(graph: Graph, templates: Mapping[str, Template]) -> TemplateChoice:
    """The one node with a template, where everything after it is elementwise on its result.

    A template that stores its outputs itself has no epilogue.
    """
    having = [n for n in graph.nx if n.key in templates]
    objections = {n: templates[n.key].objection(graph, n) for n in having}
    found = [n for n in having if objections[n] is None]
    if len(found) != 1:
        return _without(graph, found, objections)
    (anchor,) = found
    last = _misfit(graph, anchor, templates[anchor.key].stores)
    if last is None:
        return TemplateChoice(anchor)
    return TemplateChoice(None, f"{last.key} is not elementwise on the result of {anchor.key}")


def _without(
    graph: Graph, found: list[Node], objections: Mapping[Node, str | None]
) -> TemplateChoice:
    """A region without a template of its own, and why where it holds sums of products."""
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
    """The op, and the element types that it takes."""
    types = dict.fromkeys(v.dtype for v in graph.inputs_of(node)[:2] if v is not None)
    return f"{node.key} of {' and '.join(types)}"


def _misfit(graph: Graph, anchor: Node, stores: bool) -> Node | None:
    """The node because of which the template of ``anchor`` cannot compute the region."""
    others = [v.node for v in graph.outputs if v.node is not anchor]
    if stores:
        return others[0] if others else None
    after = nx.descendants(graph.nx, anchor) - {graph.sink}
    reached = after | {anchor}
    wrong = [n for n in graph.topological() if n in after and not in_epilogue(graph, anchor, n)]
    wrong += [n for n in others if n not in reached]
    if len(anchor.outputs) != 1:
        wrong.append(anchor)
    return wrong[0] if wrong else None


def in_epilogue(graph: Graph, anchor: Node, node: Node) -> bool:
    """Is ``node`` elementwise on the anchor's result, or where that goes?

    What has been transposed is stored; blocks keep their lanes, so more may follow.
    """
    if node.key == "Transpose":
        return all(consumer is graph.sink for consumer, _ in graph.uses(node.out()))
    if node.key == SPREAD:
        return graph.required_inputs(node)[0].shape == anchor.out().shape
    moved = move_before(graph, node)
    shape = (moved or anchor).out().tensor_type.shape
    free = is_elementwise(node, graph.inputs_of(node))
    return free and all(v.tensor_type.shape == shape for v in node.values)


def move_before(graph: Graph, node: Node) -> Node | None:
    """The movement of blocks that ``node`` is, or follows."""
    if node.key == SPREAD:
        return node
    before = nx.ancestors(graph.nx, node)
    return next((n for n in before if n.key == SPREAD), None)


__all__ = ["SPREAD", "TemplateChoice", "choose_template", "move_before"]
