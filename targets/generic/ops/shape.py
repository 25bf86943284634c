"""Lowerings of ops that read or change shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from ....ir.dims import Dim
from ....ir.ops.shape import fill_value, shape_window
from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.extents import as_int, flatten_index, index, product
from ...tir.numeric import cast
from ..constants import literal
from ..registry import LowerContext, lowering, sizes
from .movement_params import At, cuts, fresh_sizes, int_params, reshape_map

# ---- values of shapes ----------------------------------------------------------------------------


def choose(entries: Sequence[Expr], which: Expr) -> Expr:
    """Entry number ``which`` (in bounds), as a chain of selects."""
    known = as_int(which)
    if known is not None:
        return entries[known]
    result = entries[-1]
    for i in range(len(entries) - 2, -1, -1):
        result = tirx.Select(which.equal(index(i)), entries[i], result)
    return result


def _values(ctx: LowerContext, dims: Sequence[Dim]) -> TensorExpr:
    """The result: a tensor whose elements are ``dims``."""
    to = ctx.types[0].dtype.name
    entries = [cast(index(ctx.b.dim(d)), to) for d in dims]
    shape = ctx.out_shape()

    def load(at: At) -> Expr:
        return choose(entries, flatten_index(at, shape)) if entries else literal(0, to)

    return ctx.lazy(load, cost=len(entries))


@lowering("Shape")
def _shape(ctx: LowerContext) -> TensorExpr:
    t = ctx.input_types[0]
    assert t is not None
    return _values(ctx, t.dims[shape_window(ctx.attr("start") or 0, ctx.attr("end"), t.rank)])


@lowering("Size")
def _size(ctx: LowerContext) -> TensorExpr:
    total = index(product(ctx.input(0).shape))
    return ctx.lazy(lambda _at: total)


@lowering("kiln.ShapeValue")
def _shape_value(ctx: LowerContext) -> TensorExpr:
    return _values(ctx, ctx.attr("dims"))


# ---- views ---------------------------------------------------------------------------------------


@lowering("Reshape", "kiln.Reshape", "Flatten", "Squeeze", "Unsqueeze", "com.microsoft.ExpandDims")
def _view(ctx: LowerContext) -> TensorExpr:
    x = ctx.input(0)
    if isinstance(x, BufferTensor):
        return ctx.b.view(x, ctx.out_shape())
    t = ctx.input_types[0]
    assert t is not None
    have, want = t.dims, ctx.types[0].dims
    place = ctx.destination()
    if place is not None and cuts(want, have) > cuts(have, want):
        # A loop over the input's shape takes products to merge dims, one over the result's
        # divisions.
        ctx.b.nest(
            x.shape, lambda at: place.store(reshape_map(ctx, at, have, want), x[at]), 1 + x.cost
        )
        return place
    return ctx.lazy(lambda at: x[reshape_map(ctx, at, want, have)], cost=x.cost)


@sizes("Reshape")
def _reshape_sizes(ctx: LowerContext) -> list[Expr]:
    x, target = ctx.input(0), int_params(ctx, 1)
    out: list[Expr] = []
    for i, d in enumerate(target):
        copied = index(x.shape[i]) if i < x.rank and not ctx.attr("allowzero") else d
        out.append(tirx.Select(d.equal(index(0)), copied, d))
    others: Any = index(1)
    for d in out:
        others = others * tirx.Select(d.equal(index(-1)), index(1), d)
    missing = tirx.floordiv(index(product(x.shape)), tirx.max(others, index(1)))
    open_ones: Any = sum((cast(d.equal(index(-1)), "int64") for d in out), start=index(0))
    missing = tirx.Select(open_ones <= 1, missing, index(-1))
    return fresh_sizes(ctx, [tirx.Select(d.equal(index(-1)), missing, d) for d in out])


def _names(axes: Sequence[Expr], i: int, rank: int) -> Expr:
    """The condition that one of ``axes`` is axis ``i``."""
    found = [a.equal(index(i)) | a.equal(index(i - rank)) for a in axes]
    return tirx.any(*found) if found else tirx.const(False, "bool")


@sizes("Squeeze")
def _squeeze_sizes(ctx: LowerContext) -> list[Expr]:
    x, axes = ctx.input(0), int_params(ctx, 1)
    rank = ctx.types[0].rank
    out: list[Any] = [index(0)] * rank
    position: Any = index(0)
    for i, extent in enumerate(x.shape):
        kept = tirx.Not(_names(axes, i, x.rank))
        for j in range(rank):
            here = tirx.all(kept, position.equal(index(j)))
            out[j] = tirx.Select(here, index(extent), out[j])
        position = ctx.b.let(position + cast(kept, "int64"))
    ones = [index(e).equal(index(1)) | tirx.Not(_names(axes, i, x.rank))
            for i, e in enumerate(x.shape)]  # fmt: skip
    return fresh_sizes(ctx, [tirx.Select(tirx.all(*ones), d, index(-1)) for d in out])


@sizes("Unsqueeze", "com.microsoft.ExpandDims")
def _unsqueeze_sizes(ctx: LowerContext) -> list[Expr]:
    x, axes = ctx.input(0), int_params(ctx, 1)
    rank = ctx.types[0].rank
    out: list[Expr] = []
    position: Any = index(0)
    for j in range(rank):
        named = _names(axes, j, rank)
        extents = [index(e) for e in x.shape]
        source = choose(extents, tirx.min(position, index(x.rank - 1)))
        out.append(tirx.Select(named, index(1), source))
        position = ctx.b.let(position + tirx.Select(named, index(0), index(1)))
    return fresh_sizes(ctx, out)


# ---- Expand, ConstantOfShape ---------------------------------------------------------------------


@lowering("Expand", "kiln.Expand")
def _expand(ctx: LowerContext) -> TensorExpr:
    x, t = ctx.input(0), ctx.input_types[0]
    assert t is not None
    want = ctx.types[0].dims[-t.rank :] if t.rank else ()

    def load(at: At) -> Expr:
        own = at[len(at) - x.rank :]
        return x[tuple(map(_broadcast_index, own, x.shape, t.dims, want))]

    return ctx.lazy(load, cost=x.cost)


def _broadcast_index(i: Expr, extent: Any, have: Dim, want: Dim) -> Expr:
    if have == 1:
        return index(0)
    if have == want or isinstance(have, int):
        return i
    return tirx.Select(index(extent).equal(index(1)), index(0), i)


@sizes("Expand")
def _expand_sizes(ctx: LowerContext) -> list[Expr]:
    x, target = ctx.input(0), int_params(ctx, 1)
    rank = ctx.types[0].rank
    have = [index(1)] * (rank - x.rank) + [index(e) for e in x.shape]
    want = [index(1)] * (rank - len(target)) + target
    return fresh_sizes(
        ctx, [tirx.Select(w.equal(index(1)), h, w) for h, w in zip(have, want, strict=True)]
    )


@lowering("ConstantOfShape")
def _constant_of_shape(ctx: LowerContext) -> TensorExpr:
    value = literal(fill_value(ctx.attr("value")), ctx.out_dtype())
    return ctx.lazy(lambda _at: value, cost=0)


@sizes("ConstantOfShape")
def _constant_of_shape_sizes(ctx: LowerContext) -> list[Expr]:
    return fresh_sizes(ctx, int_params(ctx, 0))
