"""TensorIR that decides conditions between dims at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from tvm import tirx

from ..ir.conditions import Relation
from ..targets.tir.builder import Builder
from ..targets.tir.extents import index
from ..targets.tir.saturated_dim import saturated_dim
from .dim_slots import Verdict

Expr: TypeAlias = Any


def decide(b: Builder, verdict: Verdict, symbol: Callable[[str], Expr]) -> tuple[Expr, Expr, Expr]:
    """The number of the first condition that fails, from 1 (0: none does), and its two sizes.

    ``symbol`` gives the value of a symbol's name. Results pass through memory, not variables: TVM
    substitutes variables by their definitions, which takes exponential time on chains of them.
    """
    failed, first, second = (b.scalar("int64", 0) for _ in range(3))
    for n, c in reversed(list(enumerate(verdict.conditions, 1))):
        x = b.opaque(saturated_dim(b, c.a, symbol))
        y = b.opaque(saturated_dim(b, c.b, symbol))
        with b.when(_broken(c.relation, x, y)):
            failed.set(index(n))
            first.set(x)
            second.set(y)
    return b.let(failed.get()), b.let(first.get()), b.let(second.get())


def _broken(relation: Relation, a: Expr, b: Expr) -> Expr:
    one = index(1)
    if relation is Relation.EQUAL:
        return tirx.NE(a, b)
    if relation is Relation.AT_MOST:
        return a > b
    if relation is Relation.MULTIPLE:
        rest = tirx.floormod(a, tirx.Select(b < one, one, b))
        return tirx.NE(tirx.Select(b.equal(index(0)), a, rest), index(0))
    if relation is Relation.BROADCAST_TO:
        return tirx.all(tirx.NE(a, b), tirx.NE(a, one))
    return tirx.all(tirx.NE(a, b), tirx.NE(a, one), tirx.NE(b, one))
