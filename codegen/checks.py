"""Conditions on sizes, which wait until the symbols in them are bound."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from ..errors import node_text
from ..ir.conditions import Condition, Relation, asserted
from ..ir.dims import sym
from ..ir.graph import Graph, Node
from .program import SizeCheck


@dataclass(frozen=True)
class Check:
    """A condition, and the message of the error where it does not hold."""

    condition: Condition
    message: str
    hint: str = ""

    @property
    def told(self) -> SizeCheck:
        return SizeCheck(self.message, str(self.condition.a), str(self.condition.b), self.hint)


class Checks:
    """The checks of the graph being lowered and of the graphs around it, as a stack.

    A check is emitted when the last of its symbols is bound. One whose symbols nothing binds is
    about the result of a node that was removed as dead code, and is never emitted.
    """

    def __init__(self) -> None:
        self._waiting: list[list[Check]] = []

    def enter(self, graph: Graph) -> None:
        """Push the checks of a graph: its ``kiln.Assert`` nodes."""
        nodes = [n for n in graph.topological() if n.key == "kiln.Assert"]
        self._waiting.append([_check(n.attrs) for n in nodes])

    def leave(self) -> None:
        """Pop the checks of the graph entered last."""
        self._waiting.pop()

    def add(self, check: Check) -> None:
        """One more check of the graph entered last."""
        self._waiting[-1].append(check)

    def take(self, bound: Set[str]) -> list[Check]:
        """Remove and return the checks whose symbols are all ``bound``."""
        ready = []
        for n, waiting in enumerate(self._waiting):
            ready += [c for c in waiting if c.condition.symbols <= bound]
            self._waiting[n] = [c for c in waiting if not c.condition.symbols <= bound]
        return ready


def _check(attrs: Mapping[str, object]) -> Check:
    return Check(asserted(attrs), str(attrs["message"]), str(attrs.get("hint", "")))


MOST = 1 << 48
"""The largest size allowed: no memory holds so much, and sums of such sizes fit int64."""


def size_of_values(node: Node, symbol: str) -> list[Check]:
    """The limits of a size that ``node`` computes from its inputs' elements."""
    size, where = sym(symbol), node_text(node.name, node.key)
    limits = (
        (0, size, "a size that is not negative"),
        (size, MOST, "a size that memory can hold"),
    )
    return [
        Check(Condition(Relation.AT_MOST, a, b, where, why), f"{where} needs {why}")
        for a, b, why in limits
    ]
