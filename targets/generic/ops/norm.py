"""Lowerings of the normalizations by mean and variance.

The variance is computed from the differences to the mean, in a second pass, since E[x^2] - E[x]^2
would lose precision.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ....ir.shapes import normalize_axes
from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.extents import as_int, index, product
from ...tir.numeric import cast
from ...tir.reduce import SUM, At, Group, Held, collapse, for_groups
from ..registry import LowerContext, lowering

# ONNX's function body of MeanVarianceNormalization adds this to the standard deviation.
MVN_EPSILON = 1e-9


def mean_of(g: Group, load: Callable[[At], Expr], count: Any, dtype: str) -> Held:
    """The mean of ``load`` over a group of ``count`` elements."""
    total = g.fold(load, SUM, dtype)
    return g.hold(lambda: total() / cast(index(count), dtype), dtype)


def variance_of(g: Group, load: Callable[[At], Expr], mean: Held, count: Any, dtype: str) -> Held:
    """The population variance of ``load`` around its ``mean``."""

    def square(at: At) -> Expr:
        difference = g.b.let(load(at) - mean())
        return difference * difference

    return mean_of(g, square, count, dtype)


def inverse_root(value: Expr, epsilon: float, dtype: str) -> Expr:
    """``1 / sqrt(value + epsilon)``."""
    return tirx.const(1, dtype) / tirx.sqrt(value + tirx.const(epsilon, dtype))


# ---- over groups of channels ---------------------------------------------------------------------


@lowering("InstanceNormalization")
def _lower_instance(ctx: LowerContext) -> TensorExpr:
    return _lower_channel_groups(ctx, ctx.input(0).shape[1], 1)


@lowering("GroupNormalization")
def _lower_group(ctx: LowerContext) -> TensorExpr:
    groups = ctx.attr("num_groups")
    channels = ctx.input(0).shape[1]
    known = as_int(channels)
    members = known // groups if known is not None else tirx.floordiv(channels, index(groups))
    return _lower_channel_groups(ctx, groups, members)


def _lower_channel_groups(ctx: LowerContext, groups: Any, members: Any) -> TensorExpr:
    """Normalize each group of ``members`` channels; scale and bias are given per channel."""
    batch, _, *spatial = ctx.input(0).shape
    rows, size = product([batch, groups]), product(spatial)
    x = ctx.b.view(source := ctx.buffered(0), [rows, product([members, size])])
    channels = ctx.b.view(source, [rows, members, size])
    out = ctx.b.view(result := ctx.result(), [rows, members, size])
    dtype = x.compute_dtype
    scale, bias = ctx.buffered(1), ctx.buffered(2)

    def program(g: Group) -> None:
        count = x.shape[1]
        mean = mean_of(g, lambda at: x[at], count, dtype)
        variance = variance_of(g, lambda at: x[at], mean, count, dtype)
        inverse = g.hold(lambda: inverse_root(variance(), ctx.attr("epsilon"), dtype), dtype)
        (row,) = g.at
        first = g.b.let(tirx.floormod(row, index(groups)) * index(members))
        with g.b.loop(members) as c:
            factor = g.b.let(inverse() * cast(scale[first + c], dtype))
            shift = g.b.let(cast(bias[first + c], dtype) - mean() * factor)
            with g.b.loop(size) as i:
                out.store((row, c, i), channels[row, c, i] * factor + shift)

    for_groups(ctx.b, x.shape, [1], program, dtype, cost=8)
    return result


@lowering("MeanVarianceNormalization")
def _lower_mean_variance(ctx: LowerContext) -> TensorExpr:
    axes = sorted(normalize_axes(ctx.attr("axes"), ctx.input(0).rank))
    shape, axes = collapse(ctx.input(0).shape, axes)
    x = ctx.b.view(ctx.buffered(0), shape)
    out = ctx.b.view(result := ctx.result(), shape)
    dtype = x.compute_dtype

    def program(g: Group) -> None:
        count = product(g.extents)
        mean = mean_of(g, lambda at: x[at], count, dtype)
        variance = variance_of(g, lambda at: x[at], mean, count, dtype)
        deviation = g.hold(lambda: tirx.sqrt(variance()) + tirx.const(MVN_EPSILON, dtype), dtype)
        g.each(lambda at: out.store(at, (x[at] - mean()) / deviation()))

    for_groups(ctx.b, shape, axes, program, dtype, cost=8)
    return result


# ---- batch normalization -------------------------------------------------------------------------


@lowering("BatchNormalization")
def _lower_batch(ctx: LowerContext) -> TensorExpr | list[TensorExpr]:
    if not ctx.attr("training_mode"):
        return _scaled(ctx, ctx.input(0), ctx.input(3), ctx.input(4))
    x = ctx.buffered(0)
    mean, variance = _batch_statistics(ctx, x)
    running = [
        _running(ctx, 3 + i, statistic, 1 + i)
        for i, statistic in enumerate((mean, variance)[: len(ctx.node.outputs) - 1])
    ]
    return [_scaled(ctx, x, mean, variance), *running]


def _scaled(ctx: LowerContext, x: TensorExpr, mean: TensorExpr, variance: TensorExpr) -> TensorExpr:
    dtype = x.compute_dtype
    scale, bias = ctx.input(1), ctx.input(2)

    def load(at: At) -> Expr:
        c = at[1] if len(at) > 1 else index(0)
        inverse = inverse_root(cast(variance[c], dtype), ctx.attr("epsilon"), dtype)
        factor = ctx.b.let(inverse * cast(scale[c], dtype))
        return (x[at] - cast(mean[c], dtype)) * factor + cast(bias[c], dtype)

    return ctx.lazy(load, cost=x.cost + 6)


def _running(ctx: LowerContext, i: int, current: TensorExpr, output: int) -> TensorExpr:
    old = ctx.input(i)
    dtype = old.compute_dtype
    keep = ctx.attr("momentum")

    def load(at: At) -> Expr:
        fresh = cast(current[at], dtype) * tirx.const(1 - keep, dtype)
        return old[at] * tirx.const(keep, dtype) + fresh

    return ctx.lazy(load, output, cost=3)


def _batch_statistics(ctx: LowerContext, x: BufferTensor) -> tuple[BufferTensor, BufferTensor]:
    """Mean and population variance of each channel."""
    batch, channels, *spatial = [*x.shape, 1] if x.rank == 1 else x.shape
    shape, axes = collapse([batch, channels, product(spatial)], [0, 2])
    source = ctx.b.view(x, shape)
    kept = [e for i, e in enumerate(shape) if i not in axes]
    dtype = x.compute_dtype
    means = ctx.b.workspace((channels,), dtype, "mean")
    variances = ctx.b.workspace((channels,), dtype, "variance")
    mean_view, variance_view = ctx.b.view(means, kept), ctx.b.view(variances, kept)

    def program(g: Group) -> None:
        count = product(g.extents)
        mean = mean_of(g, lambda at: source[at], count, dtype)
        variance = variance_of(g, lambda at: source[at], mean, count, dtype)
        g.once(lambda at: mean_view.store(at, mean()))
        g.once(lambda at: variance_view.store(at, variance()))

    for_groups(ctx.b, shape, axes, program, dtype, cost=5)
    return means, variances
