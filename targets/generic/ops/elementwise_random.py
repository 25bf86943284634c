"""Lowerings of Dropout and of the ops that draw random numbers."""

from __future__ import annotations

import zlib

import numpy as np
from tvm import tirx

from ...tir import math
from ...tir.arithmetic import convert
from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.extents import as_int, flatten_index, index
from ...tir.floats import subtract
from ...tir.numeric import cast, compute_dtype
from ...tir.random import normal, uniform
from ..broadcast import scalar
from ..registry import LowerContext, lowering
from .elementwise import COSTLY

RANDOM_COST = 4 * COSTLY


def stream_key(ctx: LowerContext) -> int:
    """The generator's key: the attribute ``seed`` or, without one, the node's name."""
    seed = ctx.attr("seed")
    if seed is None:
        return zlib.crc32(ctx.node.name.encode())
    return int(np.float64(seed).view(np.uint64))


def _counter(ctx: LowerContext, at: tuple[Expr, ...]) -> Expr:
    return ctx.b.let(flatten_index(at, ctx.out_shape()))


@lowering("RandomUniform", "RandomUniformLike")
def _uniform(ctx: LowerContext) -> TensorExpr:
    low, high, key = ctx.attr("low"), ctx.attr("high"), stream_key(ctx)
    dtype = compute_dtype(ctx.out_dtype())

    def load(at: tuple[Expr, ...]) -> Expr:
        unit = uniform(ctx.b, key, _counter(ctx, at), dtype)
        return unit * tirx.const(high - low, dtype) + tirx.const(low, dtype)

    return ctx.lazy(load, cost=RANDOM_COST)


@lowering("RandomNormal", "RandomNormalLike")
def _normal(ctx: LowerContext) -> TensorExpr:
    mean, scale, key = ctx.attr("mean"), ctx.attr("scale"), stream_key(ctx)
    dtype = compute_dtype(ctx.out_dtype())

    def load(at: tuple[Expr, ...]) -> Expr:
        value = normal(ctx.b, key, _counter(ctx, at), dtype)
        return value * tirx.const(scale, dtype) + tirx.const(mean, dtype)

    return ctx.lazy(load, cost=RANDOM_COST + 2 * COSTLY)


@lowering("Bernoulli")
def _bernoulli(ctx: LowerContext) -> TensorExpr:
    x, key = ctx.input(0), stream_key(ctx)
    to = compute_dtype(ctx.out_dtype())

    def load(at: tuple[Expr, ...]) -> Expr:
        drawn = uniform(ctx.b, key, _counter(ctx, at), x.compute_dtype) < x.load(at)
        return convert(drawn, to)

    return ctx.lazy(load, cost=RANDOM_COST + x.cost)


@lowering("Dropout")
def _dropout(ctx: LowerContext) -> list[TensorExpr]:
    x = ctx.input(0)
    training = ctx.known(2)
    if not ctx.has(2) or (training is not None and not training.any()):
        return [x, TensorExpr("bool", x.shape, lambda at: tirx.const(True, "bool"))]
    b, key = ctx.b, stream_key(ctx)
    dtype = x.compute_dtype
    one = tirx.const(1.0, dtype)

    def ratio() -> Expr:
        rate = cast(scalar(ctx, 1), dtype) if ctx.has(1) else tirx.const(0.5, dtype)
        return b.let(tirx.Select(scalar(ctx, 2), rate, tirx.const(0.0, dtype)))

    def kept(at: tuple[Expr, ...], rate: Expr) -> Expr:
        return uniform(b, key, _counter(ctx, at), dtype) >= rate

    def load(at: tuple[Expr, ...]) -> Expr:
        rate = ratio()
        value = x.load(at) / subtract(one, rate)
        return tirx.Select(kept(at, rate), value, tirx.const(0.0, dtype))

    cost = RANDOM_COST + x.cost
    mask = TensorExpr("bool", x.shape, lambda at: kept(at, ratio()), cost)
    return [ctx.lazy(load, cost=cost), mask]


@lowering("Multinomial")
def _multinomial(ctx: LowerContext) -> TensorExpr:
    """Inverts the cumulative distribution: one pass for the sum, one to find the class."""
    b, x, out, key = ctx.b, ctx.buffered(0), ctx.result(), stream_key(ctx)
    classes = x.shape[1]
    dtype = x.compute_dtype

    def body(at: tuple[Expr, ...]) -> None:
        row = at[0]
        top = b.scalar(dtype, x[row, 0])
        with b.loop(classes) as i:
            top.set(tirx.max(top.get(), x[row, i]))
        total = b.scalar(dtype, 0.0)
        with b.loop(classes) as i:
            total.set(total.get() + _weight(ctx, x, row, i, top.get()))
        left = b.scalar(dtype, uniform(b, key, _counter(ctx, at), dtype) * total.get())
        chosen = b.scalar("int64", index(0))
        with b.loop(classes) as i:
            left.set(left.get() - _weight(ctx, x, row, i, top.get()))
            past = left.get() >= tirx.const(0.0, dtype)
            last = index(classes) - index(1)
            chosen.set(tirx.Select(past, tirx.min(i + index(1), last), chosen.get()))
        out.store(at, cast(chosen.get(), ctx.out_dtype()))

    cost = 2 * COSTLY * (as_int(classes) or 1)
    b.nest(out.shape, body, cost, sequential_last=True)
    return out


def _weight(ctx: LowerContext, x: BufferTensor, row: Expr, i: Expr, top: Expr) -> Expr:
    """The unnormalised probability of class ``i``; inputs are log-probabilities."""
    return math.exp(ctx.b, ctx.b.let(subtract(x[row, i], top)))
