"""Dead code elimination: operations and constants whose results nobody uses."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ..ir.graph import Graph, Node
from .base import Pass, PassContext, register_pass
from .bodies import captured_inputs, drop_inputs


@register_pass
@dataclass(frozen=True)
class DeadCode(Pass):
    """Removes what no result depends on, also captured values that a body does not use.

    Model inputs stay, since callers name them.
    """

    name = "dce"

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        counts: Counter[str] = Counter()
        for node in graph.nodes:
            counts["captures"] += _drop_captures(graph, node)
        counts["nodes"] += graph.prune()
        return counts


def _drop_captures(graph: Graph, node: Node) -> int:
    """Remove captured inputs of control flow that none of its bodies uses."""
    captured = captured_inputs(graph, node)
    unused = [c for c in captured if all(b.nx.out_degree(v.node) == 0 for b, v in c.inner)]
    if unused:
        drop_inputs(graph, node, unused)
    return len(unused)
