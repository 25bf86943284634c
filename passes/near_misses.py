"""Near misses: rewrites that were tried and not made, with the reasons, as ``explain`` reports
them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from ..ir.graph import Node


@dataclass(frozen=True)
class NearMiss:
    """A rewrite that was not made: its rule, the node, its op and ONNX nodes, and the reason."""

    rule: str
    node: str
    op: str
    origins: tuple[str, ...]
    reason: str


@dataclass
class NearMisses:
    """Collects rewrites that were not made, of rules or nodes whose names match ``pattern``.

    The pattern is like one for file names: ``layout``, ``recognize-*``, ``*/attn/*``. Equal ones
    are kept once.
    """

    pattern: str
    _found: dict[NearMiss, None] = field(default_factory=dict)

    def __call__(self, rule: str, node: Node, reason: str) -> None:
        names = (rule, node.name, *node.origins)
        if any(fnmatchcase(name, self.pattern) for name in names):
            miss = NearMiss(rule, node.name, node.key, node.origins.names, reason)
            self._found.setdefault(miss)

    def __iter__(self) -> Iterator[NearMiss]:
        return iter(self._found)


__all__ = ["NearMiss", "NearMisses"]
