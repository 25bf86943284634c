"""Lowerings of ``Reduce*``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ....ir.ops.reduce import REDUCTIONS, static_axes
from ...tir import arithmetic, math
from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import as_int, index, product
from ...tir.numeric import cast, dtype_of
from ...tir.reduce import (
    MAX,
    MIN,
    PRODUCT,
    SUM,
    At,
    Group,
    Monoid,
    RowGroup,
    collapse,
    for_groups,
)
from ...tir.softmax import finite_or_zero
from ..registry import LowerContext, lowering, sizes

SHORT_ROW = 32
"""Rows shorter than this are merged with other reduced axes, by way of memory."""


def _same(value: Expr) -> Expr:
    return value


def _mean(total: Expr, count: Any) -> Expr:
    if not dtype_of(total).startswith("float"):
        return tirx.truncdiv(total, cast(index(count), dtype_of(total)))
    if as_int(count) == 0:
        return tirx.infinity(dtype_of(total)) - tirx.infinity(dtype_of(total))
    return total / cast(index(count), dtype_of(total))


def _sqrt(total: Expr, _count: Any) -> Expr:
    if dtype_of(total).startswith("float"):
        return tirx.sqrt(total)
    return cast(tirx.sqrt(cast(total, "float64")), dtype_of(total))


def _magnitude(value: Expr) -> Expr:
    return value if dtype_of(value).startswith("uint") else tirx.abs(value)


@dataclass(frozen=True)
class _Reduction:
    """``after(fold(before(x)), number of elements)``."""

    monoid: Monoid
    before: Callable[[Expr], Expr] = _same
    after: Callable[[Expr, Any], Expr] = lambda total, _count: total


_KINDS = {
    "ReduceSum": _Reduction(SUM),
    "ReduceMean": _Reduction(SUM, after=_mean),
    "ReduceMax": _Reduction(MAX),
    "ReduceMin": _Reduction(MIN),
    "ReduceProd": _Reduction(PRODUCT),
    "ReduceL1": _Reduction(SUM, before=_magnitude),
    "ReduceL2": _Reduction(SUM, before=lambda v: arithmetic.multiply(v, v), after=_sqrt),
    "ReduceLogSum": _Reduction(SUM, after=lambda total, _count: tirx.log(total)),
    "ReduceSumSquare": _Reduction(SUM, before=lambda v: arithmetic.multiply(v, v)),
}


@lowering(*REDUCTIONS)
def _lower_reduce(ctx: LowerContext) -> TensorExpr:
    x = ctx.input(0)
    axes = static_axes(ctx, x.rank)
    if axes is None:
        return _lower_runtime_axes(ctx)
    if not axes:
        return _lower_pointwise(ctx)
    shape, merged = collapse(x.shape, axes)
    if _worth_merging(x, axes):
        x = ctx.b.view(ctx.buffered(0), shape)
    else:
        shape, merged = list(x.shape), list(axes)
    kept = [e for i, e in enumerate(shape) if i not in merged]
    out = ctx.b.view(result := ctx.result(), kept)
    program = _program(ctx.node.op, x, out, ctx.b)
    for_groups(ctx.b, shape, merged, program, accumulator(x), cost=1 + x.cost)
    return result


def _worth_merging(x: TensorExpr, axes: Sequence[int]) -> bool:
    if isinstance(x, BufferTensor):
        return True
    last = as_int(x.shape[-1])
    trailing = len(axes) > 1 and axes[-1] == x.rank - 1
    return trailing and last is not None and last < SHORT_ROW


def accumulator(x: TensorExpr) -> str:
    """The TVM dtype in which elements of ``x`` are reduced."""
    return "uint8" if x.compute_dtype == "bool" else x.compute_dtype


def _program(op: str, x: TensorExpr, out: BufferTensor, b: Builder) -> Callable[[Group], None]:
    """The reduction of one group, stored at its index in ``out``."""
    dtype = accumulator(x)

    def simple(g: Group) -> None:
        kind = _KINDS[op]
        total = g.fold(lambda at: kind.before(b.element(cast(x[at], dtype))), kind.monoid, dtype)
        count = product(g.extents)
        g.once(lambda at: out.store(at, kind.after(total(), count)))

    def log_sum_exp(g: Group) -> None:
        peak = g.fold(lambda at: x[at], MAX, dtype)
        shift = g.hold(lambda: finite_or_zero(peak()), dtype)
        total = g.fold(lambda at: math.exp_flush(b, x[at] - shift()), SUM, dtype)
        g.once(lambda at: out.store(at, math.log(b, total()) + shift()))

    return log_sum_exp if op == "ReduceLogSumExp" else simple


def _lower_pointwise(ctx: LowerContext) -> TensorExpr:
    """A reduction over no axis: every element is a group of its own."""
    x = ctx.input(0)
    kind = _KINDS.get(ctx.node.op)
    if kind is None:
        return ctx.lazy(x.load, cost=x.cost)  # log(exp(x))
    return ctx.lazy(
        lambda at: kind.after(kind.before(ctx.b.element(x.load(at))), 1), cost=x.cost + 2
    )


# ---- axes that are only known at run time --------------------------------------------------------


class _RuntimeGroup(RowGroup):
    """A group whose reduced axes are only known at run time, by a flag for each axis."""

    def __init__(
        self, b: Builder, shape: Sequence[Any], reduced: Sequence[Expr], at: At, keepdims: bool
    ) -> None:
        super().__init__(b, shape, range(len(shape)), at, 0)
        self._kept_at = at if keepdims else _kept_indices(reduced, at)
        self._reduced = reduced
        self.extents = tuple(
            b.let(tirx.Select(r, index(e), index(1)), "extent")
            for r, e in zip(reduced, shape, strict=True)
        )

    def place(self, reduced: At) -> At:
        return tuple(
            tirx.Select(r, i, k)
            for r, i, k in zip(self._reduced, reduced, self._kept_at, strict=True)
        )


def _positions(reduced: Sequence[Expr]) -> list[Expr]:
    """For each axis, how many axes before it are kept."""
    found: list[Expr] = []
    count: Any = index(0)
    for r in reduced:
        found.append(count)
        count = count + tirx.Select(r, index(0), index(1))
    return found


def _kept_indices(reduced: Sequence[Expr], at: At) -> At:
    """For each input axis, the output index that belongs to it where it is kept."""
    indices = []
    for position in _positions(reduced):
        found: Any = index(0)
        for k, i in enumerate(at):
            found = tirx.Select(position.equal(index(k)), i, found)
        indices.append(found)
    return tuple(indices)


def _runtime_flags(ctx: LowerContext, rank: int) -> list[Expr]:
    """Whether each axis is reduced, read from input 1."""
    axes = ctx.input(1)
    count = axes.shape[0]
    empty_reduces = not ctx.attr("noop_with_empty_axes")
    flags = []
    for d in range(rank):
        named = ctx.b.scalar("int32", 0)
        with ctx.b.loop(count) as j:
            axis = ctx.b.let(axes[j])
            hit = tirx.any(axis.equal(index(d)), axis.equal(index(d - rank)))
            named.set(tirx.Select(hit, tirx.const(1, "int32"), named.get()))
        reduced = named.get() > 0
        if empty_reduces:
            reduced = tirx.any(reduced, index(count).equal(index(0)))
        flags.append(ctx.b.let(reduced, "reduced"))
    return flags


def _lower_runtime_axes(ctx: LowerContext) -> TensorExpr:
    x = ctx.buffered(0)
    out = ctx.result()
    program = _program(ctx.node.op, x, out, ctx.b)
    keepdims = bool(ctx.attr("keepdims"))

    def body(at: At) -> None:
        reduced = _runtime_flags(ctx, x.rank)
        program(_RuntimeGroup(ctx.b, x.shape, reduced, at, keepdims))

    ctx.b.nest(out.shape, body, cost=1_000, sequential_last=True)
    return out


@sizes(*REDUCTIONS)
def _reduce_sizes(ctx: LowerContext) -> list[Expr]:
    shape = [index(e) for e in ctx.input(0).shape]
    reduced = _runtime_flags(ctx, len(shape))
    if ctx.attr("keepdims"):
        return [tirx.Select(r, index(1), e) for r, e in zip(reduced, shape, strict=True)]
    found = []
    for k in range(ctx.types[0].rank):
        extent: Any = index(0)
        for r, position, e in zip(reduced, _positions(reduced), shape, strict=True):
            extent = tirx.Select(tirx.all(tirx.Not(r), position.equal(index(k))), e, extent)
        found.append(extent)
    return found
