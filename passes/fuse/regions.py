"""Which region each node belongs to, and what may join it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ...ir.dims import Dim
from ...ir.graph import Graph, Node, Value
from ..base import PassContext
from .classify import Kind


@dataclass
class Region:
    """A set of nodes; ``inputs`` are the values from outside that they read.

    ``evaluated`` says how many elements of a member are computed, at most: as many as its
    consumer has, which is more than its own where the consumer broadcasts.
    """

    anchor: Node | None
    members: list[Node] = field(default_factory=list)
    inputs: set[Value] = field(default_factory=set)
    evaluated: dict[Node, Dim] = field(default_factory=dict)


class Regions:
    """The regions of one graph while they grow."""

    def __init__(
        self,
        graph: Graph,
        context: PassContext,
        max_nodes: int,
        max_inputs: int,
        kinds: Mapping[Node, Kind],
    ) -> None:
        self.graph = graph
        self.target = context.target
        self.kinds = kinds
        self._explain = context.explain
        self._max_nodes = max_nodes
        self._max_inputs = max_inputs
        self._of: dict[Node, Region] = {}
        self._regions: list[Region] = []

    def region_of(self, node: Node) -> Region | None:
        return self._of.get(node)

    def explain(self, node: Node, reason: str) -> None:
        if self._explain is not None:
            self._explain("fuse", node, reason)

    # ---- growing -----------------------------------------------------------------------------

    def start(self, anchor: Node | None, members: list[Node]) -> Region:
        """A new region of ``members``, producers first."""
        region = Region(anchor)
        self._regions.append(region)
        for node in reversed(members):
            self._add(region, node)
        return region

    def _add(self, region: Region, node: Node) -> None:
        self._of[node] = region
        region.members.append(node)
        region.evaluated[node] = self._evaluated(region, node)
        region.inputs.difference_update(node.values)
        region.inputs.update(v for v in self.graph.inputs_of(node) if v is not None)

    def _evaluated(self, region: Region, node: Node) -> Dim:
        own = node.out().tensor_type.numel
        counts = [region.evaluated[c] for c in self.graph.out_edges(node) if c in region.evaluated]
        if region.anchor is not None and region.anchor in self.graph.out_edges(node):
            return own
        return next((c for c in counts if c != own), own)

    def join_consumers(self, node: Node) -> None:
        """Put ``node`` into the region that holds all its consumers, or start one with it."""
        kind = self.kinds[node]
        if node in self._of or kind in (Kind.ALONE, Kind.ANCHOR):
            return
        region = self._consumers_region(node)
        reason = "its consumers are in several regions" if region is None else None
        if region is not None:
            reason = self._objection(region, node, kind)
            if reason is None:
                self._add(region, node)
                return
        self.explain(node, reason or "")
        if kind is not Kind.VIEW:
            self.start(None, [node])

    def _consumers_region(self, node: Node) -> Region | None:
        """The one region that holds every consumer of ``node``."""
        found: Region | None = None
        for consumer in self.graph.out_edges(node):
            region = self._of.get(consumer)
            if region is None or found is not None and region is not found:
                return None
            found = region
        return found

    def _objection(self, region: Region, node: Node, kind: Kind) -> str | None:
        """Why ``node``, all of whose consumers are in ``region``, may not join it."""
        if len(region.members) >= self._max_nodes:
            return f"the region has {self._max_nodes} nodes"
        added = {v for v in self.graph.inputs_of(node) if v is not None and not v.is_constant}
        if len(region.inputs | added) - 1 > self._max_inputs:
            return f"the region has {self._max_inputs} inputs"
        if kind is Kind.VIEW and not only_unit_dims(self.graph, node):
            return "a view that changes more than dims of 1"
        anchor = region.anchor
        if anchor is not None and anchor in self.graph.out_edges(node):
            return self._prologue_objection(anchor, node)
        if self._evaluated(region, node) != node.out().tensor_type.numel:
            return None if self.target.cheap(node) else "it would be computed several times"
        return None

    def _prologue_objection(self, anchor: Node, node: Node) -> str | None:
        if not self.target.cheap(node):
            return "too expensive in front of an anchor"
        return self.target.fusible_prologue(self.graph, anchor, node)

    # ---- result ------------------------------------------------------------------------------

    def finished(self, position: Mapping[Node, int]) -> Iterator[list[Node]]:
        """The members of each region worth having, producers first, without border views."""
        for region in sorted(self._regions, key=lambda r: min(position[n] for n in r.members)):
            members = self._without_border_views(region.members)
            if len(members) > 1:
                yield sorted(members, key=lambda n: position[n])

    def _without_border_views(self, members: list[Node]) -> list[Node]:
        inside = set(members)
        changed = True
        while changed:
            changed = False
            for node in [n for n in inside if self.kinds[n] is Kind.VIEW]:
                produced = any(p in inside for p in self.graph.in_edges(node))
                used = any(c in inside for c in self.graph.out_edges(node))
                if not produced or not used:
                    inside.discard(node)
                    changed = True
        return [n for n in members if n in inside]


def only_unit_dims(graph: Graph, node: Node) -> bool:
    """Does this view only insert or remove dims of 1?"""
    x = graph.input(node, 0)
    if x is None:
        return False
    return [d for d in x.shape if d != 1] == [d for d in node.out().shape if d != 1]


__all__ = ["Region", "Regions", "only_unit_dims"]
