"""Counts of the edits that each rule of a pass made, from what the listener hears."""

from __future__ import annotations

from dataclasses import dataclass

from ..ir.edit import Listener
from ..ir.graph import Node, Value


@dataclass
class Edits:
    """How many nodes a rule inserted and removed, and how many values it replaced."""

    inserted: int = 0
    removed: int = 0
    replaced: int = 0


class EditCounter:
    """A listener that counts edits by rule, and passes them on to another listener."""

    def __init__(self, then: Listener | None = None) -> None:
        self.by_rule: dict[str, Edits] = {}
        self._then = then

    def inserted(self, node: Node, rule: str) -> None:
        self._of(rule).inserted += 1
        if self._then is not None:
            self._then.inserted(node, rule)

    def removed(self, node: Node, rule: str) -> None:
        self._of(rule).removed += 1
        if self._then is not None:
            self._then.removed(node, rule)

    def replaced(self, old: Value, new: Value, rule: str) -> None:
        self._of(rule).replaced += 1
        if self._then is not None:
            self._then.replaced(old, new, rule)

    def _of(self, rule: str) -> Edits:
        return self.by_rule.setdefault(rule, Edits())


__all__ = ["EditCounter", "Edits"]
