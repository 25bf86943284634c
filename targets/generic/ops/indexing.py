"""Lowerings of ops that read elements at indices from another tensor."""

from __future__ import annotations

from tvm import tirx

from ...tir import arithmetic
from ...tir.builder import Expr, TensorExpr
from ...tir.extents import as_int, index, product, unflatten
from ...tir.numeric import cast
from ..registry import LowerContext, lowering, sizes
from .movement_params import At, clamp, fresh_sizes, replaced, scalar_param, within, wrapped

CHEAP = 8
"""Indices that take more operations than this are computed once, into memory."""


def _indices(ctx: LowerContext) -> TensorExpr:
    x = ctx.input(1)
    return x if x.cost <= CHEAP else ctx.buffered(1)


@lowering("Gather")
def _gather(ctx: LowerContext) -> TensorExpr:
    x, indices = ctx.input(0), _indices(ctx)
    axis = ctx.attr("axis") % x.rank

    def load(at: At) -> Expr:
        after = axis + indices.rank
        picked = wrapped(ctx, indices[at[axis:after]], x.shape[axis])
        return x[(*at[:axis], picked, *at[after:])]

    return ctx.lazy(load, cost=x.cost + indices.cost + 2)


@lowering("GatherElements")
def _gather_elements(ctx: LowerContext) -> TensorExpr:
    x, indices = ctx.input(0), _indices(ctx)
    axis = ctx.attr("axis") % x.rank

    def load(at: At) -> Expr:
        return x[replaced(at, axis, wrapped(ctx, indices[at], x.shape[axis]))]

    return ctx.lazy(load, cost=x.cost + indices.cost + 2)


@lowering("GatherND", "com.microsoft.GatherND")
def _gather_nd(ctx: LowerContext) -> TensorExpr:
    x, indices = ctx.input(0), _indices(ctx)
    batch = ctx.attr("batch_dims")
    depth = as_int(indices.shape[-1])
    assert depth is not None

    def load(at: At) -> Expr:
        lead = at[: indices.rank - 1]
        picked = [
            wrapped(ctx, indices[(*lead, index(k))], x.shape[batch + k]) for k in range(depth)
        ]
        return x[(*at[:batch], *picked, *at[indices.rank - 1 :])]

    return ctx.lazy(load, cost=x.cost + depth * (indices.cost + 2))


@lowering("ai.onnx.ml.ArrayFeatureExtractor")
def _array_feature_extractor(ctx: LowerContext) -> TensorExpr:
    x, indices = ctx.input(0), _indices(ctx)

    def load(at: At) -> Expr:
        which = indices[unflatten(at[-1], indices.shape)]
        lead = at[:-1] if x.rank > 1 else ()
        return x[(*lead, wrapped(ctx, which, x.shape[-1]))]

    return ctx.lazy(load, cost=x.cost + indices.cost + 2)


# ---- TensorScatter, OneHot -----------------------------------------------------------------------


@lowering("TensorScatter")
def _tensor_scatter(ctx: LowerContext) -> TensorExpr:
    cache, update = ctx.input(0), ctx.input(1)
    axis = ctx.attr("axis") % cache.rank

    def load(at: At) -> Expr:
        start = index(ctx.input(2)[at[0]]) if ctx.has(2) else index(0)
        source = at[axis] - start
        if ctx.attr("mode") == "circular":
            source = tirx.floormod(source, index(cache.shape[axis]))
        source = ctx.b.let(source)
        new = update[replaced(at, axis, clamp(source, update.shape[axis]))]
        return tirx.Select(within(source, update.shape[axis]), new, cache[at])

    return ctx.lazy(load, cost=cache.cost + update.cost + 4)


@lowering("OneHot")
def _one_hot(ctx: LowerContext) -> TensorExpr:
    indices, values = ctx.input(0), ctx.input(2)
    axis = ctx.attr("axis") % len(ctx.out_shape())
    depth = index(ctx.out_shape()[axis])

    def load(at: At) -> Expr:
        value = ctx.b.let(indices[(*at[:axis], *at[axis + 1 :])])
        # Fractions are dropped, as by a cast to int64; NaN and numbers out of range match nothing.
        to = "float64" if indices.compute_dtype.startswith("float") else "int64"
        value = tirx.trunc(cast(value, to)) if to == "float64" else cast(value, to)
        which = tirx.Select(value < tirx.const(0, to), value + cast(depth, to), value)
        return tirx.Select(which.equal(cast(at[axis], to)), values[1], values[0])

    return ctx.lazy(load, cost=indices.cost + 4)


@sizes("OneHot")
def _one_hot_sizes(ctx: LowerContext) -> list[Expr]:
    axis = ctx.attr("axis") % ctx.types[0].rank
    shape = [index(e) for e in ctx.input(0).shape]
    depth = cast(scalar_param(ctx, 1), "int64")
    return fresh_sizes(ctx, [*shape[:axis], depth, *shape[axis:]])


# ---- results whose size depends on the data ------------------------------------------------------


@sizes("NonZero")
def _non_zero_sizes(ctx: LowerContext) -> list[Expr]:
    x = ctx.input(0)
    return fresh_sizes(ctx, [index(x.rank), _count(ctx, x, x.shape)])


def _count(ctx: LowerContext, x: TensorExpr, shape: object) -> Expr:
    """How many elements of ``x`` are not zero."""
    total = ctx.b.scalar("int64", 0)
    with ctx.b.grid(*shape) as at:  # type: ignore[misc]
        total.set(total.get() + cast(arithmetic.convert(x[at], "bool"), "int64"))
    return total.get()


@lowering("NonZero")
def _non_zero(ctx: LowerContext) -> TensorExpr:
    b, x, out = ctx.b, ctx.input(0), ctx.result()

    def body(_at: At) -> None:
        found = b.scalar("int64", 0)
        with b.grid(*x.shape) as at, b.when(arithmetic.convert(x[at], "bool")):
            for axis, i in enumerate(at):
                out.store((index(axis), found.get()), i)
            found.set(found.get() + 1)

    b.nest((), body)
    return out


@sizes("Compress")
def _compress_sizes(ctx: LowerContext) -> list[Expr]:
    x, condition = ctx.input(0), ctx.input(1)
    axis = ctx.attr("axis")
    count = _count(ctx, condition, (_length(x, condition, axis),))
    return fresh_sizes(ctx, (count,) if axis is None else replaced(x.shape, axis % x.rank, count))


def _length(x: TensorExpr, condition: TensorExpr, axis: int | None) -> Expr:
    """How many elements of the condition count: at most as many as the axis has."""
    extent = product(x.shape) if axis is None else x.shape[axis % x.rank]
    return tirx.min(index(condition.shape[0]), index(extent))


@lowering("Compress")
def _compress(ctx: LowerContext) -> TensorExpr:
    b, x, condition = ctx.b, ctx.input(0), ctx.input(1)
    axis = ctx.attr("axis")
    at_axis = 0 if axis is None else axis % x.rank
    picked = b.workspace((ctx.out_shape()[at_axis],), "int64", "picked")

    def body(_at: At) -> None:
        found = b.scalar("int64", 0)
        with b.loop(_length(x, condition, axis)) as i, b.when(condition[i]):
            picked.store((found.get(),), i)
            found.set(found.get() + 1)

    b.nest((), body)

    def load(at: At) -> Expr:
        source = picked[at[at_axis]]
        return x[unflatten(source, x.shape) if axis is None else replaced(at, at_axis, source)]

    return ctx.lazy(load, cost=x.cost + 1)
