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
        names = (node.name, node.key, *node.origins)
        for pattern in self.exclude:
            if any(fnmatchcase(name, pattern) for name in names):
                return f"excluded by {pattern!r}"
        if self.only and not any(fnmatchcase(n, p) for p in self.only for n in names):
            return "not among those asked for"
        return None


__all__ = ["Selection"]
