"""Regions around a heavy op: the elementwise operations on its result, and where it goes."""

from __future__ import annotations

from ...ir.graph import Node, Value
from ...ir.registry import has_trait
from ...ir.traits import Trait
from .classify import Kind
from .regions import OTHER_DEVICE, Regions

_MAX_EPILOGUE = 24
_MAX_OPEN = 4


def grow_epilogue(regions: Regions, anchor: Node) -> None:
    """Make the region of ``anchor``: the largest set of nodes that only its last value leaves.

    Consumers are tried producers first; the set so far is kept whenever one value leaves it.
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
    """Bytes are stored, not the floats made of them, where all that reads these may make them."""
    last = members[-1]
    if last.key != "DequantizeLinear" or len(members) == 1:
        return members
    readers = list(regions.graph.out_edges(last))
    if readers and all(_takes(regions, last, reader) for reader in readers):
        return members[:-1]
    return members


def _takes(regions: Regions, node: Node, reader: Node) -> bool:
    """May the region of ``reader``, which reads every element once, compute ``node`` for itself?"""
    if reader.device != node.device:
        return False
    if has_trait(reader, Trait.SINGLE_PASS):
        return regions.hardware.fusible_prologue(regions.graph, reader, node) is None
    kind = regions.kinds.get(reader)
    return kind is Kind.ELEMENTWISE and reader.out().shape == node.out().shape


def _outside_consumers(
    regions: Regions, members: list[Node], inside: set[Node]
) -> list[Node] | None:
    """Who uses values of ``members`` outside; None where that is too much to look at."""
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
    graph = regions.graph
    return [n.out() for n in members if any(c not in inside for c in graph.out_edges(n))]


def _objection(regions: Regions, members: list[Node], node: Node) -> str | None:
    """Why ``node`` does not join the epilogue ``members``, anchor first, or None."""
    anchor, kind = members[0], regions.kinds.get(node)
    moved = next((m for m in members if regions.kinds[m] is Kind.MOVE), None)
    if moved is not None and (moved.key == "Transpose" or kind is Kind.MOVE):
        return "the result has been moved"
    if kind is not Kind.ELEMENTWISE and kind is not Kind.MOVE:
        return "not elementwise"
    if regions.region_of(node) is not None:
        return "it has a region already"
    if node.device != anchor.device:
        return OTHER_DEVICE
    if kind is Kind.ELEMENTWISE and node.out().shape != (moved or anchor).out().shape:
        return "its shape is not that of the anchor"
    return regions.hardware.fusible_epilogue(regions.graph, anchor, node)


__all__ = ["grow_epilogue"]
