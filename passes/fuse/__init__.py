"""Fusion: cuts the graph into regions, each of which becomes one kernel.

A region is a ``kiln.Region`` node whose ``body`` is a closed graph. Two kinds are formed:

1. A heavy op (the anchor: convolution, matmul, reduction, pool, norm ...) with the elementwise
   operations on its result, as far as nothing outside needs a value in between.
2. Elementwise operations and cheap movements, and where the target allows it, what is cheap to
   compute in front of an anchor.

Merging never makes a cycle. Of the first kind, only the last value leaves the set, so a path that
left and came back would be a cycle of the graph itself. Of the second kind, an operation joins the
one region that holds all its consumers, so no other path leads from it into the region.

A cheap operation whose consumers are in a few regions is computed in each of them.

Views (``kiln.Reshape``) at a region's border stay outside: they cost nothing. Data-dependent
sizes, control flow, host functions, strings and sequences never stand in a region.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ...ir.graph import Graph
from ..base import Pass, PassContext, register_pass
from ..claims import rounds
from ..facts import NO_DEAD_NODES
from .anchors import grow_epilogue
from .classify import Kind, classify
from .outline import outline
from .regions import Regions


@register_pass
@dataclass(frozen=True)
class Fuse(Pass):
    """Cuts the graph into regions.

    ``max_nodes`` and ``max_inputs`` bound a region; scalars and small integer constants become
    part of it, other constants are inputs.
    """

    max_nodes: int = 64
    max_inputs: int = 48

    name = "fuse"
    claims = {
        "regions": rounds(
            "a kernel for each of several ops = one for all",
            "u of each product that a sum takes without rounding it, and the roundings to floats "
            "below 32 bits that are left out between the ops",
        )
    }
    requires = (NO_DEAD_NODES,)

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        order = graph.topological()
        kinds = {n: classify(graph, n) for n in order}
        editor = context.editor(graph)
        regions = Regions(editor, context, self.max_nodes, self.max_inputs, kinds)
        for node in order:
            if kinds[node] is Kind.ANCHOR:
                grow_epilogue(regions, node)
        for node in reversed(order):
            regions.join_consumers(node)
        counts: Counter[str] = Counter()
        for members in regions.finished():
            outline(editor, members)
            counts["regions"] += 1
            counts["nodes"] += len(members)
        return counts


__all__ = ["Fuse", "Kind", "classify"]
