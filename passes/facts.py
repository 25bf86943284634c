"""Facts about a graph that one pass requires and another ensures; each can be checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..ir.graph import Graph


@dataclass(frozen=True)
class Fact:
    """A property that a graph has or has not.

    ``name`` completes "it needs a graph with ...". ``objection`` returns why one graph, without its
    bodies, does not have it, or None; it takes time linear in the size of the graph.
    """

    name: str
    objection: Callable[[Graph], str | None] = field(compare=False, repr=False)

    def missing(self, graph: Graph) -> str | None:
        """The first objection in ``graph`` and in the bodies of its control flow."""
        found = (self.objection(part) for part in graph.walk(regions=False))
        return next((o for o in found if o is not None), None)


def _unused(graph: Graph) -> str | None:
    for node in graph.nodes:
        if node.outputs and not graph.out_edges(node):
            return f"nothing uses node {node.name!r} ({node.key})"
    return None


NO_DEAD_NODES = Fact("no dead nodes", _unused)
"""Every operation that has results has one that is used."""


__all__ = ["NO_DEAD_NODES", "Fact"]
