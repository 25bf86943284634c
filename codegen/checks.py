"""Conditions on sizes that wait until a run knows what they are about."""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

from ..ir.conditions import Condition, Relation
from ..ir.dims import Dim, sym
from ..ir.graph import Graph, Node
from .program import SizeCheck


@dataclass(frozen=True)
class Check:
    """A condition, and a remark that may help where it does not hold."""

    condition: Condition
    hint: str
    message: str = ""

    @property
    def told(self) -> SizeCheck:
        c = self.condition
        return SizeCheck(self.message or f"{c.node} needs {c.why}", str(c.a), str(c.b), self.hint)


class Checks:
    """The checks of the graph being lowered and of those around it.

    A check whose symbols nothing binds is about the result of a node that went away as dead code:
    it is never taken.
    """

    def __init__(self) -> None:
        self._waiting: list[list[Check]] = []

    def enter(self, graph: Graph) -> None:
        """Take over what the ``kiln.Assert`` nodes of a graph ask for."""
        nodes = [n for n in graph.topological() if n.key == "kiln.Assert"]
        self._waiting.append([_check(n.attrs) for n in nodes])

    def leave(self) -> None:
        """The graph entered last is done."""
        self._waiting.pop()

    def add(self, check: Check) -> None:
        """One more check of the graph entered last."""
        self._waiting[-1].append(check)

    def take(self, bound: Set[str]) -> list[Check]:
        """Those that can be decided where the symbols ``bound`` have values; each is given once."""
        ready = []
        for n, waiting in enumerate(self._waiting):
            ready += [c for c in waiting if c.condition.symbols <= bound]
            self._waiting[n] = [c for c in waiting if not c.condition.symbols <= bound]
        return ready


def _check(attrs: Mapping[str, object]) -> Check:
    a, b = attrs["a"], attrs["b"]
    assert isinstance(a, Dim) and isinstance(b, Dim)
    message = str(attrs["message"])
    condition = Condition(Relation(attrs["relation"]), a, b, "", "")
    return Check(condition, str(attrs.get("hint", "")), message)


MOST = 1 << 48
"""No dim is larger: sums of dims stay numbers, and no memory holds so much."""


def size_of_values(node: Node, symbol: str) -> list[Check]:
    """What every size that ``node`` computes from its values must be."""
    where, size = f"node {node.name!r} ({node.key})", sym(symbol)
    low = Condition(Relation.AT_MOST, 0, size, where, "a size that is not negative")
    high = Condition(Relation.AT_MOST, size, MOST, where, "a size that memory can hold")
    return [Check(low, ""), Check(high, "")]
