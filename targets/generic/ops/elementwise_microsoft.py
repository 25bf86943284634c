"""Lowerings of element-wise ops of com.microsoft."""

from __future__ import annotations

from tvm import tirx

from ...tir import activations
from ...tir.builder import Expr, TensorExpr
from ...tir.extents import index
from ..broadcast import aligned
from ..registry import LowerContext, lowering
from .elementwise import COSTLY, Function, unary


@lowering("com.microsoft.Gelu")
def _gelu(ctx: LowerContext) -> TensorExpr:
    return unary(ctx, activations.gelu, COSTLY)


@lowering("com.microsoft.QuickGelu")
def _quick_gelu(ctx: LowerContext) -> TensorExpr:
    return unary(ctx, lambda b, x: activations.swish(b, x, ctx.attr("alpha")), COSTLY)


@lowering("com.microsoft.FastGelu")
def _fast_gelu(ctx: LowerContext) -> TensorExpr:
    return _biased(ctx, activations.gelu_tanh)


@lowering("com.microsoft.BiasGelu")
def _bias_gelu(ctx: LowerContext) -> TensorExpr:
    return _biased(ctx, activations.gelu)


def _biased(ctx: LowerContext, function: Function) -> TensorExpr:
    """``function`` of input 0 plus input 1, where that is given."""
    if not ctx.has(1):
        return unary(ctx, function, COSTLY)
    b, x, bias = ctx.b, ctx.input(0), aligned(ctx, 1)
    cost = COSTLY + x.cost + ctx.input(1).cost
    return ctx.lazy(lambda at: function(b, b.let(x.load(at) + bias(at))), cost=cost)


@lowering("com.microsoft.BiasAdd")
def _bias_add(ctx: LowerContext) -> TensorExpr:
    x, bias, skip = (aligned(ctx, i) for i in range(3))
    cost = 2 + sum(t.cost for t in ctx.inputs if t is not None)
    return ctx.lazy(lambda at: (x(at) + bias(at)) + skip(at), cost=cost)


@lowering("com.microsoft.BiasSplitGelu")
def _bias_split_gelu(ctx: LowerContext) -> TensorExpr:
    b, x, bias = ctx.b, ctx.input(0), ctx.input(1)
    half = tirx.floordiv(index(x.shape[-1]), index(2))

    def half_of(at: tuple[Expr, ...], offset: Expr) -> Expr:
        place = at[-1] + offset
        return b.let(x.load((*at[:-1], place)) + bias.load((place,)))

    def load(at: tuple[Expr, ...]) -> Expr:
        return half_of(at, index(0)) * activations.gelu(b, half_of(at, half))

    return ctx.lazy(load, cost=COSTLY + 2 * (x.cost + bias.cost))
