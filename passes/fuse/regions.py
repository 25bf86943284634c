"""Which region each node belongs to, and what may join it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ...ir.costs import usual
from ...ir.dims import Dim
from ...ir.edit import Editor
from ...ir.graph import Graph, Node, Value
from ...ir.storage import storage_bytes
from ..base import PassContext
from .classify import Kind

_MAX_COPIES = 4
"""Regions that may each get a copy of a cheap operation; for more of them its result is stored."""


_JOINED = 4
"""A region that ends in a JOIN may have so many times ``max_nodes``."""


OTHER_DEVICE = "it runs on another device"


@dataclass
class Region:
    """A set of nodes that will be one kernel; ``inputs`` are the values that it reads.

    ``evaluated`` is the number of elements of a member that the kernel computes: its consumer's
    number, which is larger than its own where the consumer broadcasts it. A ``[64]`` vector that is
    added to a ``[128, 64]`` matrix is evaluated 8,192 times. ``front`` is the prologue: the members
    that the anchor reads, directly or through others.
    """

    anchor: Node | None
    members: list[Node] = field(default_factory=list)
    inputs: set[Value] = field(default_factory=set)
    evaluated: dict[Node, Dim] = field(default_factory=dict)
    front: set[Node] = field(default_factory=set)


class Regions:
    """The regions of one graph while they grow."""

    def __init__(
        self,
        editor: Editor,
        context: PassContext,
        max_nodes: int,
        max_inputs: int,
        kinds: Mapping[Node, Kind],
    ) -> None:
        """``kinds`` holds every operation of the graph, in topological order."""
        self.graph = editor.graph
        self._editor = editor
        self.hardware = context.hardware
        self.kinds = dict(kinds)
        self._position = {n: i for i, n in enumerate(kinds)}
        self._explain = context.explain
        self._max_nodes = max_nodes
        self._max_inputs = max_inputs
        self._of: dict[Node, Region] = {}
        self._regions: list[Region] = []

    def position(self, node: Node) -> int:
        """The node's place in topological order; the graph's ``Output`` node comes last."""
        return self._position.get(node, len(self._position))

    def region_of(self, node: Node) -> Region | None:
        """The region of a node; None as long as it has none."""
        return self._of.get(node)

    def explain(self, node: Node, reason: str) -> None:
        """Report why ``node`` did not join a region, where somebody asked."""
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
        consumers = self.graph.out_edges(node)
        if any(c is region.anchor or c in region.front for c in consumers):
            region.front.add(node)
        region.inputs.difference_update(node.values)
        region.inputs.update(v for v in self.graph.inputs_of(node) if v is not None)

    def _evaluated(self, region: Region, node: Node) -> Dim:
        """How many elements of ``node`` the kernel of ``region`` computes."""
        own = node.out().tensor_type.numel
        counts = [
            region.evaluated[c]
            for c in self.graph.out_edges(node)
            if c in region.evaluated and self.kinds[c] not in (Kind.ANCHOR, Kind.JOIN)
        ]
        return next((c for c in counts if c != own), own)

    def join_consumers(self, node: Node) -> None:
        """Put ``node`` into the region of its consumers, or copies into several, or start one."""
        kind = self.kinds[node]
        if node in self._of or kind in (Kind.ALONE, Kind.ANCHOR):
            return
        regions = self._consumers_regions(node) if kind is not Kind.JOIN else []
        if len(regions) == 1:
            reason = self._objection(regions[0], node, kind)
        else:
            reason = self._copy_objection(regions, node, kind)
        if reason is None:
            self._add_to_all(regions, node, kind)
            return
        self.explain(node, reason)
        if kind is not Kind.VIEW:
            self.start(None, [node])

    def _consumers_regions(self, node: Node) -> list[Region]:
        """The regions of the consumers of ``node``.

        Empty where one of them has no region, or where there are more than can get copies.
        """
        found: list[Region] = []
        for consumer in self.graph.out_edges(node):
            region = self._of.get(consumer)
            if region is None:
                return []
            if not any(region is r for r in found):
                found.append(region)
                if len(found) > _MAX_COPIES:
                    return []
        return found

    def _copy_objection(self, regions: list[Region], node: Node, kind: Kind) -> str | None:
        """Why the regions that use ``node`` do not get a copy of it each, or None where they do."""
        if not regions:
            return "a consumer has no region, or there are many"
        if kind not in (Kind.ELEMENTWISE, Kind.MOVE, Kind.SOURCE):
            return "its consumers are in several regions"
        if not self._copies_pay(node, len(regions)):
            return "its consumers are in several regions, and reading its result costs less"
        reasons = (self._objection(r, node, kind) for r in regions)
        return next((r for r in reasons if r is not None), None)

    def _copies_pay(self, node: Node, copies: int) -> bool:
        """Do so many copies of ``node`` move fewer bytes than one, whose result is stored and read?

        Each copy reads the input: ``copies * read <= read + out + copies * out``. Scalars cost
        nothing. What an index picks is too far apart to be read again, and of several inputs none
        could be fused with what makes it any more.
        """
        inputs = [v for v in self.graph.inputs_of(node) if v is not None]
        if inputs and (not self.hardware.cheap(node) or node.key.startswith("Gather")):
            return False
        data = [v for v in inputs if v.constant is None or v.constant.size > 1]
        out, read = _bytes(node.out(), node.out()), sum(_bytes(v, node.out()) for v in data)
        return len(data) <= 1 and copies * read <= read + (1 + copies) * out

    def _add_to_all(self, regions: list[Region], node: Node, kind: Kind) -> None:
        """Put ``node`` into the first region and a copy of it into each of the others."""
        for region in regions[1:]:
            self._editor.begin("copies", node)
            copy = self._editor.clone(node, self.graph.inputs_of(node))
            self._editor.replace_uses(node.out(), copy.out(), only=region.members)
            self.kinds[copy] = kind
            self._position[copy] = self._position[node]
            region.inputs.discard(node.out())
            self._add(region, copy)
        self._add(regions[0], node)

    def over_limit(self, nodes: int, inputs: int, joined: bool = False) -> str | None:
        """Why a region of so many nodes and so many inputs is too large; None where it is not."""
        # The operands of a JOIN are computed one after the other, so a long chain of code for each
        # costs no registers.
        if nodes > self._max_nodes * (_JOINED if joined else 1):
            return f"the region has {nodes - 1} nodes"
        return f"the region has {self._max_inputs} inputs" if inputs > self._max_inputs else None

    def _objection(self, region: Region, node: Node, kind: Kind) -> str | None:
        """Why ``node``, all of whose consumers are in ``region``, may not join it."""
        if node.device != region.members[0].device:
            return OTHER_DEVICE
        added = {v for v in self.graph.inputs_of(node) if v is not None and not v.is_constant}
        joined = self.kinds[region.members[0]] is Kind.JOIN
        inputs = len(region.inputs | added) - 1  # without the result of the node
        reason = self.over_limit(len(region.members) + 1, inputs, joined)
        if reason is not None:
            return reason
        if kind is Kind.VIEW and not only_unit_dims(self.graph, node):
            return "a view that changes more than dims of 1"
        consumers = self.graph.out_edges(node)
        if any(self.kinds[c] is Kind.SOURCE for c in consumers if c in region.evaluated):
            return "a consumer reads its elements many times"
        if region.anchor is not None and region.anchor in consumers:
            return self._prologue_objection(region.anchor, node)
        if region.anchor is not None and any(c in region.front for c in consumers):
            reason = self.hardware.fusible_prologue(self.graph, region.anchor, node)
            if reason is not None:
                return reason
        if self._evaluated(region, node) != node.out().tensor_type.numel:
            return None if self.hardware.cheap(node) else "it would be computed several times"
        return None

    def _prologue_objection(self, anchor: Node, node: Node) -> str | None:
        """Why ``node``, which ``anchor`` reads, is not computed in front of it, or None."""
        if not self.hardware.cheap(node):
            return "too expensive in front of an anchor"
        return self.hardware.fusible_prologue(self.graph, anchor, node)

    # ---- result ------------------------------------------------------------------------------

    def finished(self) -> Iterator[list[Node]]:
        """The members of each region of several, in topological order, without border views."""
        for region in sorted(self._regions, key=lambda r: min(map(self.position, r.members))):
            members = self._without_border_views(region.members)
            if len(members) > 1:
                yield sorted(members, key=self.position)

    def _without_border_views(self, members: list[Node]) -> list[Node]:
        """The members, without views that are first or last in the region."""
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


def _bytes(value: Value, result: Value) -> int:
    """What is read of ``value``, or written of it, for the elements of ``result``."""
    numel = min(usual(value.tensor_type.numel), usual(result.tensor_type.numel))
    return numel * storage_bytes(value.dtype)


def only_unit_dims(graph: Graph, node: Node) -> bool:
    """Does this view only insert or remove dims of 1?"""
    x = graph.input(node, 0)
    if x is None:
        return False
    return [d for d in x.shape if d != 1] == [d for d in node.out().shape if d != 1]


__all__ = ["Region", "Regions", "only_unit_dims"]
