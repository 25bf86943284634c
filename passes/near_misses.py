"""Why rewrites were not made: what passes say while they try, kept for those who ask."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from ..ir.graph import Node


@dataclass(frozen=True)
class NearMiss:
    """A rewrite that was tried: its rule, the node and its op, the ONNX nodes behind it, and why it
    was not made."""

    rule: str
    node: str
    op: str
    origins: tuple[str, ...]
    reason: str


@dataclass
class NearMisses:
    """Listens for rewrites that were not made, of rules or nodes whose names match ``pattern``.

    The pattern is one of file names: ``layout``, ``recognize-*``, ``*/attn/*``. Each is kept once.
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
