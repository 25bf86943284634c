"""Conditions that ops put on sizes, and proofs of them.

Inference of a node records what the node requires of symbolic dims. If the dims alone decide it, a
condition is proved or refuted here. Otherwise the importer solves it for an input's dim, or keeps
it in the graph as a ``kiln.Assert`` node, which a run checks. It is never dropped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from .dims import (
    Dim,
    DimError,
    evaluate,
    free_symbols,
    known_equal,
    lower_bound,
    upper_bound,
)
from .origins import NONE, Origins


class Relation(Enum):
    """A relation between two sizes ``a`` and ``b``; the value is its name in messages and text."""

    EQUAL = "=="
    AT_MOST = "<="
    MULTIPLE = "multiple of"
    """``a`` is a multiple of ``b`` (0 is the only multiple of 0)."""
    BROADCAST = "broadcasts with"
    """``a == b``, or one of them is 1."""
    BROADCAST_TO = "broadcasts to"
    """``a == b``, or ``a`` is 1."""

    def holds(self, a: int, b: int) -> bool:
        """Does it hold between two numbers?"""
        if self is Relation.EQUAL:
            return a == b
        if self is Relation.AT_MOST:
            return a <= b
        if self is Relation.MULTIPLE:
            return a == 0 if b == 0 else a % b == 0
        return a == b or a == 1 or (b == 1 and self is Relation.BROADCAST)


@dataclass(frozen=True)
class Condition:
    """``node`` can only run if ``a`` is in ``relation`` to ``b``.

    ``node`` names the ONNX node and its op; ``why`` completes "it needs ...". ``origins`` are those
    of the check, if a run checks the condition.
    """

    relation: Relation
    a: Dim
    b: Dim
    node: str
    why: str
    origins: Origins = field(default=NONE, compare=False)

    def proved(self) -> bool:
        """True if it holds for all values of the symbols."""
        a, b = self.a, self.b
        if isinstance(a, int) and isinstance(b, int):
            return self.relation.holds(a, b)
        if self.relation is Relation.MULTIPLE:
            return _known_multiple(a, b)
        if self.relation is Relation.AT_MOST:
            low, _ = _bounds(b, a)
            return low is not None and low >= 0
        if a == 1 and self.relation in (Relation.BROADCAST, Relation.BROADCAST_TO):
            return True
        return _known_equal(a, b) or (b == 1 and self.relation is Relation.BROADCAST)

    def refuted(self) -> bool:
        """True if it holds for no values of the symbols."""
        a, b = self.a, self.b
        if isinstance(a, int) and isinstance(b, int):
            return not self.relation.holds(a, b)
        if self.relation is Relation.MULTIPLE:
            return False
        low, high = _bounds(a, b)
        if self.relation is Relation.AT_MOST:
            return low is not None and low > 0
        apart = (low is not None and low > 0) or (high is not None and high < 0)
        if self.relation is Relation.EQUAL or not apart:
            return apart
        both = self.relation is Relation.BROADCAST
        return not _may_be_one(a) and not (both and _may_be_one(b))

    def holds(self, bindings: Mapping[str, int]) -> bool:
        """Does it hold where the symbols have these values? Raises DimError for a missing one."""
        return self.relation.holds(evaluate(self.a, bindings), evaluate(self.b, bindings))

    @property
    def symbols(self) -> frozenset[str]:
        """The symbols of both sides."""
        return free_symbols(self.a) | free_symbols(self.b)

    def __str__(self) -> str:
        return f"{self.a} {self.relation.value} {self.b}"


_STEPS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_TRIED = 12


def multiple_that_fits(conditions: list[Condition], symbol: str) -> int | None:
    """The smallest power of two, at most 256, all of whose multiples fulfil ``conditions``.

    None if there is none, or if every size but 0 fulfils them. ``symbol`` is the only symbol in
    them. Multiples are tried, so the result is no proof, but a hint for messages.
    """
    for step in _STEPS:
        try:
            if all(c.holds({symbol: step * k}) for k in range(1, _TRIED) for c in conditions):
                return None if step == 1 else step
        except DimError:
            return None
    return None


def asserted(attrs: Mapping[str, object]) -> Condition:
    """The condition that a ``kiln.Assert`` with these attributes states."""
    a, b = attrs["a"], attrs["b"]
    assert isinstance(a, Dim) and isinstance(b, Dim)
    return Condition(Relation(attrs["relation"]), a, b, "", str(attrs["message"]))


# Sums of large expressions raise an error, so nothing is proved of them.


def _bounds(a: Dim, b: Dim) -> tuple[int | None, int | None]:
    """A lower and an upper bound of ``a - b``; None where none is known."""
    try:
        return lower_bound(a - b), upper_bound(a - b)
    except DimError:
        return None, None


def _known_equal(a: Dim, b: Dim) -> bool:
    try:
        return known_equal(a, b)
    except DimError:
        return False


def _known_multiple(a: Dim, b: Dim) -> bool:
    try:
        return a == b or (b != 0 and a % b == 0)
    except DimError:
        return False


def _may_be_one(d: Dim) -> bool:
    low, high = lower_bound(d), upper_bound(d)
    return (low is None or low <= 1) and (high is None or high >= 1)


__all__ = ["Condition", "Relation", "asserted", "multiple_that_fits"]
