"""What the pattern families share."""

from __future__ import annotations

from ...ir.edit import Editor
from ...ir.graph import Node, Value
from ...ir.registry import attribute
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


def reduced_axes(m: Match, node: Node) -> tuple[int, ...] | None:
    """The axes of a reduction, from the front; None where they are not constant."""
    x = m.graph.input(node, 0)
    axes = m.graph.input(node, 1)
    if x is None:
        return None
    if axes is None:
        return None if attribute(node, "noop_with_empty_axes") else tuple(range(x.rank))
    if axes.constant is None:
        return None
    return tuple(sorted(int(a) % x.rank for a in axes.constant.reshape(-1)))


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
