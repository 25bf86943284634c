"""Fusion: cuts the graph into regions, each of which becomes one kernel.

A region is a ``kiln.Region`` node whose ``body`` is a closed graph. It grows in two steps:

1. Forwards, from each heavy op (the anchor: a convolution, matmul, reduction, pool, norm ...) over
   the elementwise operations on its result, the *epilogue*: ``Conv``, ``Add``, ``Relu`` become one
   region, unless something else reads the result of ``Conv`` or ``Add``, which must be stored then.
2. Backwards, consumers first: an operation joins the region of its consumers. In this way
   elementwise operations and cheap movements form regions of their own. In front of an anchor they
   are a *prologue*, which is computed where the anchor reads its inputs, if the target allows it.

Merging never makes a cycle between regions. In step 1 only the last value leaves the region, so a
path that left it and came back would be a cycle of the graph itself. In step 2 an operation joins
a region only if that holds all of its consumers, so no path leads from it around the region.

If the consumers of a cheap operation are in a few regions, each of them gets a copy of it.

Views (``kiln.Reshape``) at a region's border stay outside, where they cost nothing. Control flow,
host functions, strings, sequences, and operations whose result sizes depend on data are never in a
region.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ...ir.graph import Graph
from ..base import Pass, PassContext, register_pass
from ..claims import rounds
from ..facts import NO_DEAD_NODES
from .classify import Kind, classify
from .epilogue import grow_epilogue
from .outline import outline
from .regions import Regions


@register_pass
@dataclass(frozen=True)
class Fuse(Pass):
    """Cuts the graph into regions.

    A region has at most ``max_nodes`` operations and ``max_inputs`` inputs. Scalars and small
    constants of integers become part of its body, other constants are inputs.
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
