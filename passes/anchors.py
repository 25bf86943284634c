"""Anchors: the heavy operations, each of which gets a kernel, with cheap ones around it."""

from __future__ import annotations

from ..ir.graph import Node
from ..ir.registry import spec
from ..ir.traits import Trait

_TRAITS = frozenset({Trait.ANCHOR, Trait.REDUCTION})


def is_anchor(node: Node) -> bool:
    """Is ``node`` heavy, so that it starts a region?"""
    found = spec(node.key)
    return found is not None and bool(found.traits & _TRAITS)


__all__ = ["is_anchor"]
