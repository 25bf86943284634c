"""What passes share that look at the outermost graph only."""

from __future__ import annotations

from ...ir.graph import Graph
from ..base import Pass, PassContext, PassResult


class Outermost(Pass):
    """A pass that leaves bodies of loops and branches as they are: what runs in them cannot be
    observed.
    """

    def run(self, graph: Graph, context: PassContext) -> PassResult:
        return PassResult.of(self.apply(graph, context))


__all__ = ["Outermost"]
