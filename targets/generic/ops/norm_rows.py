"""Lowerings of ``LayerNormalization`` and ``RMSNormalization``: over the last axes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ....ir.shapes import normalize_axis
from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import product, same_extent
from ...tir.numeric import cast
from ...tir.reduce import At, Group, Held, for_groups
from ..broadcast import aligned
from ..registry import LowerContext, lowering
from .norm import inverse_root, mean_of, variance_of

Load = Callable[[At], Expr]


@dataclass(frozen=True)
class RowNorm:
    """``out = (x - mean) / sqrt(variance + epsilon) * scale + bias`` over ``axes``.

    If not ``centred``, no mean is subtracted, and the variance is the mean square. The mean and the
    inverse root are stored to ``mean`` and ``inverse``, if these are given.
    """

    x: BufferTensor
    out: BufferTensor
    axes: list[int]
    epsilon: float
    scale: Load
    bias: Load | None = None
    centred: bool = True
    mean: BufferTensor | None = None
    inverse: BufferTensor | None = None


def normalize_rows(b: Builder, n: RowNorm) -> None:
    """Compute a :class:`RowNorm`."""
    x, dtype = n.x, n.x.compute_dtype

    def program(g: Group) -> None:
        count = product(g.extents)
        mean = mean_of(g, x.load, count, dtype) if n.centred else None
        if mean is None:
            variance = mean_of(g, lambda at: _square(b, x[at]), count, dtype)
        else:
            variance = variance_of(g, x.load, mean, count, dtype)
        inverse = g.hold(lambda: inverse_root(variance(), n.epsilon, dtype), dtype)

        def store(at: At) -> None:
            difference = x[at] if mean is None else x[at] - mean()
            value = difference * inverse() * cast(n.scale(at), dtype)
            n.out.store(at, value if n.bias is None else value + cast(n.bias(at), dtype))

        g.each(store)
        for target, value in ((n.mean, mean), (n.inverse, inverse)):
            if target is not None and value is not None:
                g.once(_storing(target, value))

    for_groups(b, x.shape, n.axes, program, dtype, cost=8)


def _square(b: Builder, value: Expr) -> Expr:
    value = b.let(value)
    return value * value


def _storing(target: BufferTensor, value: Held) -> Callable[[At], None]:
    return lambda at: target.store(at, value())


@lowering("LayerNormalization")
def _lower_layer(ctx: LowerContext) -> list[TensorExpr]:
    return _lower_last_axes(ctx, centred=True, statistics=(1, 2))


@lowering("RMSNormalization")
def _lower_rms(ctx: LowerContext) -> list[TensorExpr]:
    return _lower_last_axes(ctx, centred=False, statistics=(None, None))


@lowering("SimplifiedLayerNormalization", "com.microsoft.SimplifiedLayerNormalization")
def _lower_simplified(ctx: LowerContext) -> list[TensorExpr]:
    return _lower_last_axes(ctx, centred=False, statistics=(None, 1))


def _lower_last_axes(
    ctx: LowerContext, centred: bool, statistics: tuple[int | None, int | None]
) -> list[TensorExpr]:
    """``statistics``: the outputs that hold mean and inverse root."""
    axis = normalize_axis(ctx.attr("axis"), ctx.input(0).rank)
    shape, axes, load = _rows(ctx, axis)
    results = [ctx.result(i) for i in range(len(ctx.node.outputs))]
    kept = shape[: axes[0]]
    mean, inverse = (
        ctx.b.view(results[i], kept) if i is not None and i < len(results) else None
        for i in statistics
    )
    norm = RowNorm(
        ctx.b.view(ctx.buffered(0), shape), ctx.b.view(results[0], shape), axes,
        ctx.attr("epsilon"), load(1), load(2) if ctx.has(2) else None, centred, mean, inverse,
    )  # fmt: skip
    normalize_rows(ctx.b, norm)
    return list(results)


def _rows(
    ctx: LowerContext, axis: int
) -> tuple[list[Any], list[int], Callable[[int], Callable[[At], Expr]]]:
    """The space of a normalization over the axes from ``axis`` on, and functions to load
    parameters.

    The space has two axes (rows and columns) if every parameter has one element for each column,
    else all axes.
    """
    full = ctx.input(0).shape
    normalized = full[axis:]
    parameters = [p for p in ctx.inputs[1:] if p is not None]
    if all(
        p.rank == len(normalized) and all(map(same_extent, p.shape, normalized)) for p in parameters
    ):
        shape, axes = [product(full[:axis]), product(normalized)], [1]
        return shape, axes, lambda i: _row_parameter(ctx, i, shape[1])
    axes = list(range(axis, len(full)))
    return list(full), axes, lambda i: aligned(ctx, i)


def _row_parameter(ctx: LowerContext, i: int, extent: Any) -> Callable[[At], Expr]:
    p = ctx.b.view(ctx.buffered(i), [extent])
    return lambda at: p[at[-1]]
