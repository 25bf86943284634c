"""Regions around a heavy op, with an epilogue: what is computed on its result before the store."""

from __future__ import annotations

from ...ir.graph import Node, Value
from ...ir.registry import has_trait
from ...ir.traits import Trait
from .classify import Kind
from .regions import OTHER_DEVICE, Regions

_MAX_EPILOGUE = 24
"""Operations in an epilogue."""
_MAX_OPEN = 4
"""Consumers outside of the growing epilogue; where there are more, the search ends."""


def grow_epilogue(regions: Regions, anchor: Node) -> None:
    """Make the region of ``anchor``: it takes in consumers, in topological order, while they fit.

    Of the sets on the way the largest one is kept from which a single value leaves. Take
    ``y = c * sigmoid(c)`` of a convolution ``c``: with ``sigmoid`` alone two values leave the set,
    ``c`` among them, but with ``*`` only ``y`` does, so all three are one region.
    """
    members: list[Node] = [anchor]
    inside = {anchor}
    kept = 1
    while len(members) <= _MAX_EPILOGUE:
        outside = _outside_consumers(regions, members, inside)
        if outside is None or not outside:
            break
        candidate = min(outside, key=regions.position)
        reason = _objection(regions, members, candidate)
        if reason is not None:
            regions.explain(candidate, reason)
            break
        members.append(candidate)
        inside.add(candidate)
        if len(_leaving(regions, members, inside)) <= 1:
            kept = len(members)
    regions.start(anchor, _without_widening(regions, members[:kept]))


def _without_widening(regions: Regions, members: list[Node]) -> list[Node]:
    """Leave out a last DequantizeLinear that all of its readers can compute for themselves.

    Then the kernel stores bytes, rather than floats, which take four times the memory.
    """
    last = members[-1]
    if last.key != "DequantizeLinear" or len(members) == 1:
        return members
    readers = list(regions.graph.out_edges(last))
    if readers and all(_takes(regions, last, reader) for reader in readers):
        return members[:-1]
    return members


def _takes(regions: Regions, node: Node, reader: Node) -> bool:
    """Can the region of ``reader`` compute ``node`` in its own kernel, at no more than one
    computation of each element?
    """
    if reader.device != node.device:
        return False
    if has_trait(reader, Trait.SINGLE_PASS):
        return regions.hardware.fusible_prologue(regions.graph, reader, node) is None
    kind = regions.kinds.get(reader)
    return kind is Kind.ELEMENTWISE and reader.out().shape == node.out().shape


def _outside_consumers(
    regions: Regions, members: list[Node], inside: set[Node]
) -> list[Node] | None:
    """The consumers of ``members`` that are not among them; None where they are too many."""
    graph = regions.graph
    found: dict[Node, None] = {}
    for node in members:
        for consumer in graph.out_edges(node):
            if consumer not in inside:
                found[consumer] = None
                if len(found) > _MAX_OPEN:
                    return None
    return list(found)


def _leaving(regions: Regions, members: list[Node], inside: set[Node]) -> list[Value]:
    """The values of ``members`` that are used outside."""
    graph = regions.graph
    return [n.out() for n in members if any(c not in inside for c in graph.out_edges(n))]


def _objection(regions: Regions, members: list[Node], node: Node) -> str | None:
    """Why ``node`` does not join the epilogue ``members``, anchor first, or None."""
    anchor, kind = members[0], regions.kinds.get(node)
    if kind is not Kind.ELEMENTWISE and kind is not Kind.MOVE:
        return "neither elementwise nor a movement"
    if regions.region_of(node) is not None:
        return "it has a region already"
    if node.device != anchor.device:
        return OTHER_DEVICE
    inside = {*members, node}
    read = {v for m in inside for v in regions.graph.inputs_of(m) if v is not None}
    reason = regions.over_limit(len(inside), len([v for v in read if v.node not in inside]))
    if reason is not None:
        return reason
    moved = next((m for m in members if regions.kinds[m] is Kind.MOVE), None)
    return regions.hardware.fusible_epilogue(regions.graph, anchor, moved, node)


__all__ = ["grow_epilogue"]
