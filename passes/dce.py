"""Dead code elimination: operations, constants and last results that nobody uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ..ir.graph import Graph, Node
from ..ir.registry import spec
from .base import Pass, PassContext, register_pass
from .captures import captured_inputs, drop_inputs
from .claims import exact

_MANY = 16
"""Ops that may have more results than this have them by count: none can be left out."""

_UNUSED = "what is computed stays as it is"


@register_pass
@dataclass(frozen=True)
class DeadCode(Pass):
    """Removes what no result depends on, also captured values that a body does not use.

    Model inputs stay, since callers name them.
    """

    name = "dce"
    claims = {
        "nodes": exact("what no result needs = nothing", _UNUSED),
        "results": exact("results that nothing uses = none", _UNUSED),
    }

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        counts: Counter[str] = Counter()
        for node in graph.nodes:
            counts["captures"] += _drop_captures(graph, node)
        counts["nodes"] += graph.prune()
        for node in graph.nodes:
            counts["results"] += _drop_results(graph, node)
        return counts


def _drop_results(graph: Graph, node: Node) -> int:
    """Remove last results that nobody uses and that the op need not return."""
    found = spec(node.key)
    least = 1 if found is None else max(1, found.min_outputs)
    if len(node.outputs) <= least or found is None or found.max_outputs > _MANY:
        return 0
    dropped = 0
    while len(node.outputs) > least and not graph.uses(node.out(len(node.outputs) - 1)):
        graph.drop_last_output(node)
        dropped += 1
    return dropped


def _drop_captures(graph: Graph, node: Node) -> int:
    """Remove captured inputs of control flow that none of its bodies uses."""
    captured = captured_inputs(graph, node)
    unused = [c for c in captured if all(b.nx.out_degree(v.node) == 0 for b, v in c.inner)]
    if unused:
        drop_inputs(graph, node, unused)
    return len(unused)
