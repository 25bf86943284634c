"""Which layers are quantized, by patterns of names."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase

from ...ir.graph import Node


@dataclass(frozen=True)
class Selection:
    """Layers that match a pattern of ``only`` (all, where there is none) and none of ``exclude``.

    Patterns are like those for file names, and match the name of a node, of an ONNX node that it
    stands for, or an op: ``/head/*``, ``MatMul``.
    """

    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def objection(self, node: Node) -> str | None:
        """Why a node is not selected, or None."""
        for pattern in self.exclude:
            if matches(pattern, node):
                return f"excluded by {pattern!r}"
        if self.only and not any(matches(pattern, node) for pattern in self.only):
            return "not among those asked for"
        return None


def matches(pattern: str, node: Node) -> bool:
    """Does a pattern match one of the names of a node?"""
    return any(fnmatchcase(name, pattern) for name in (node.name, node.key, *node.origins))


__all__ = ["Selection", "matches"]
