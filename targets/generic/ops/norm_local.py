"""Lowerings of ``LpNormalization`` and ``LRN``."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ....ir.shapes import normalize_axis
from ...tir import math
from ...tir.builder import Builder, Expr, TensorExpr
from ...tir.extents import index
from ...tir.reduce import SUM, At, Group, collapse, for_groups
from ..registry import LowerContext, lowering


@lowering("LpNormalization")
def _lower_lp(ctx: LowerContext) -> TensorExpr:
    axis = normalize_axis(ctx.attr("axis"), ctx.input(0).rank)
    shape, axes = collapse(ctx.input(0).shape, [axis])
    x = ctx.b.view(ctx.buffered(0), shape)
    out = ctx.b.view(result := ctx.result(), shape)
    dtype = x.compute_dtype
    zero, one = tirx.const(0, dtype), tirx.const(1, dtype)

    def term(at: At) -> Expr:
        value = ctx.b.let(x[at])
        return tirx.abs(value) if ctx.attr("p") == 1 else value * value

    def program(g: Group) -> None:
        total = g.fold(term, SUM, dtype)
        norm = g.hold(lambda: total() if ctx.attr("p") == 1 else tirx.sqrt(total()), dtype)
        safe = g.hold(lambda: tirx.Select(norm().equal(zero), one, norm()), dtype)
        g.each(lambda at: out.store(at, x[at] / safe()))

    for_groups(ctx.b, shape, axes, program, dtype, cost=4)
    return result


@lowering("LRN")
def _lower_lrn(ctx: LowerContext) -> TensorExpr:
    x = ctx.buffered(0)
    dtype = x.compute_dtype
    size = ctx.attr("size")
    before = (size - 1) // 2

    def load(at: At) -> Expr:
        total: Any = tirx.const(0, dtype)
        for offset in range(-before, size - before):
            total = total + _neighbour_square(ctx.b, x, at, offset)
        base = total * tirx.const(ctx.attr("alpha") / size, dtype)
        base = ctx.b.let(base + tirx.const(ctx.attr("bias"), dtype))
        return x[at] * _negative_power(ctx.b, base, ctx.attr("beta"))

    return ctx.lazy(load, cost=3 * size + 20)


def _neighbour_square(b: Builder, x: TensorExpr, at: At, offset: int) -> Expr:
    """The square of the element ``offset`` channels away, 0 outside."""
    channel = at[1] + offset
    last = index(x.shape[1]) - 1
    inside = tirx.all(channel >= 0, channel <= last)
    clamped = tirx.max(tirx.min(channel, last), index(0))
    value = b.let(x.at(at[0], clamped, *at[2:]))
    return tirx.Select(inside, value * value, tirx.const(0, x.compute_dtype))


def _negative_power(b: Builder, base: Expr, exponent: float) -> Expr:
    """``base ** -exponent`` for a positive base, by square roots for the usual exponents."""
    root = b.let(tirx.sqrt(base))
    if exponent == 0.75:
        return 1.0 / (root * tirx.sqrt(root))
    if exponent == 0.5:
        return 1.0 / root
    return math.exp(b, b.let(math.log(b, base) * -exponent))
