"""Lowerings of ``ArgMax``, ``ArgMin`` and ``Hardmax``."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ....ir.shapes import normalize_axis
from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.extents import as_int, index
from ...tir.numeric import cast
from ...tir.reduce import MAX, MIN, At, Group, Held, Monoid, collapse, for_groups, is_nan
from ..registry import LowerContext, lowering


def pick(g: Group, x: TensorExpr, axis: int, best: Monoid, last: bool = False) -> Held:
    """The index along ``axis`` of the first (or last) element of ``g`` that ``best`` keeps.

    A NaN counts as best, as in NumPy. The index is int32 where the extent is constant.
    """
    extent = x.shape[axis]
    counter = "int64" if as_int(extent) is None else "int32"
    none: Any = tirx.const(-1, counter) if last else cast(index(extent), counter)
    peak = g.fold(lambda at: x[at], best, x.compute_dtype)

    def place(at: At) -> Expr:
        value = g.b.element(x[at])
        hit = value.equal(peak())
        if x.compute_dtype.startswith("float"):
            hit = tirx.any(hit, is_nan(value))
        return tirx.Select(hit, cast(at[axis], counter), none)

    return g.fold(place, MAX if last else MIN, counter)


def _grouped(ctx: LowerContext, axis: int) -> tuple[BufferTensor, list[int]]:
    """Input 0 in memory with its kept axes merged, and the reduced axis there."""
    shape, axes = collapse(ctx.input(0).shape, [axis])
    return ctx.b.view(ctx.buffered(0), shape), axes


@lowering("ArgMax", "ArgMin")
def _lower_arg(ctx: LowerContext) -> TensorExpr:
    axis = normalize_axis(ctx.attr("axis"), ctx.input(0).rank)
    x, axes = _grouped(ctx, axis)
    kept = [e for i, e in enumerate(x.shape) if i not in axes]
    out = ctx.b.view(result := ctx.result(), kept)
    best = MAX if ctx.node.op == "ArgMax" else MIN

    def program(g: Group) -> None:
        found = pick(g, x, axes[0], best, bool(ctx.attr("select_last_index")))
        g.once(lambda at: out.store(at, cast(found(), "int64")))

    for_groups(ctx.b, x.shape, axes, program, x.compute_dtype, cost=4)
    return result


@lowering("Hardmax")
def _lower_hardmax(ctx: LowerContext) -> TensorExpr:
    axis = normalize_axis(ctx.attr("axis"), ctx.input(0).rank)
    x, axes = _grouped(ctx, axis)
    out = ctx.b.view(result := ctx.result(), x.shape)
    dtype = x.compute_dtype
    one, zero = tirx.const(1, dtype), tirx.const(0, dtype)

    def program(g: Group) -> None:
        found = pick(g, x, axes[0], MAX)

        def store(at: At) -> None:
            chosen = cast(at[axes[0]], "int64").equal(cast(found(), "int64"))
            out.store(at, tirx.Select(chosen, one, zero))

        g.each(store)

    for_groups(ctx.b, x.shape, axes, program, dtype, cost=5)
    return result
