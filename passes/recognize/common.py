"""Patterns and replacements that several families use."""

from __future__ import annotations

from ...ir.edit import Editor
from ...ir.graph import Value
from ..pattern import Match, Op, Pattern

X = "x"


def product(*factors: Pattern) -> list[Op]:
    """``Mul`` trees over three factors in every grouping (each Mul matches both orders)."""
    a, b, c = factors
    return [
        Op("Mul", Op("Mul", a, b), c),
        Op("Mul", Op("Mul", a, c), b),
        Op("Mul", a, Op("Mul", b, c)),
    ]


def trailing(axes: tuple[int, ...] | None, rank: int) -> int | None:
    """The first of ``axes`` where they are the last axes of ``rank``; else None."""
    if not axes or axes != tuple(range(rank - len(axes), rank)):
        return None
    return axes[0]


def unary(key: str) -> object:
    """A replacement: op ``key`` of ``x``."""

    def replace(m: Match, r: Editor) -> Value:
        return r.op(key, m[X])

    return replace
