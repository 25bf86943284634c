"""Lowering of Pad: constant, edge, reflect and wrap borders; negative pads crop."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.extents import as_int, index
from ..registry import LowerContext, lowering, sizes
from .movement_params import (
    At,
    all_known,
    axis_params,
    clamp,
    fresh_sizes,
    int_params,
    is_open,
    scalar_param,
    spread,
    spread_open,
    within,
    zero,
)

Border = tuple[Expr, Expr]
Rule = Callable[[Expr, Expr], Expr]


def _write_borders(ctx: LowerContext, table: BufferTensor) -> None:
    """Emit code that fills the table: a row of the pads before each axis, a row of those after."""
    rank = ctx.input(0).rank
    if is_open(ctx, 1):
        count = tirx.floordiv(index(ctx.input(1).shape[0]), 2)
        for row in (0, 1):
            spread_open(ctx, table, row, 1, [index(0)] * rank, row * count, count)
        return
    pads = int_params(ctx, 1)
    count = len(pads) // 2
    axes = axis_params(ctx, 3, count, rank)
    for row, values in enumerate((pads[:count], pads[count:])):
        spread(table, row, axes, values, [index(0)] * rank)


def _table(ctx: LowerContext) -> BufferTensor:
    return ctx.b.workspace((2, ctx.input(0).rank), "int64", "borders")


def _known_borders(ctx: LowerContext) -> list[Border]:
    rank = ctx.input(0).rank
    pads = int_params(ctx, 1)
    count = len(pads) // 2
    out = [(index(0), index(0))] * rank
    for k, axis in enumerate(axis_params(ctx, 3, count, rank)):
        out[int(axis.value)] = (pads[k], pads[k + count])
    return out


@lowering("Pad", "com.microsoft.Pad")
def _pad(ctx: LowerContext) -> TensorExpr:
    x, mode = ctx.input(0), ctx.attr("mode")
    place = ctx.destination()
    if all_known(ctx, (1, 3)):
        borders = _known_borders(ctx)
        grows = all((as_int(e) or 0) >= 0 for pair in borders for e in pair)
        if mode == "constant" and place is not None and grows:
            return _framed(ctx, place, borders)
    else:
        table = _table(ctx)
        ctx.b.nest((), lambda _at: _write_borders(ctx, table))
        borders = [(table[0, a], table[1, a]) for a in range(x.rank)]
    if mode == "constant":
        return ctx.lazy(lambda at: _constant(ctx, borders, at), cost=x.cost + 3 * x.rank)
    rule = _RULES[mode]

    def load(at: At) -> Expr:
        parts = zip(at, borders, x.shape, strict=True)
        return x[tuple(_source(i, pair, index(size), rule) for i, pair, size in parts)]

    return ctx.lazy(load, cost=x.cost + 4 * x.rank)


def _framed(ctx: LowerContext, place: BufferTensor, borders: list[Border]) -> TensorExpr:
    """Fill the result with the border, then copy the input into it: no test for each element."""
    x = ctx.input(0)
    ctx.b.nest(place.shape, lambda at: place.store(at, _fill(ctx)))

    def body(at: At) -> None:
        place.store([i + before for i, (before, _) in zip(at, borders, strict=True)], x[at])

    ctx.b.nest(x.shape, body, 1 + x.cost)
    return place


def _fill(ctx: LowerContext) -> Expr:
    return scalar_param(ctx, 2) if ctx.has(2) else zero(ctx)


def _constant(ctx: LowerContext, borders: list[Border], at: At) -> Expr:
    x = ctx.input(0)
    where, inside = [], []
    for i, (before, after), size in zip(at, borders, x.shape, strict=True):
        if as_int(before) == 0 and as_int(after) == 0:
            where.append(i)
            continue
        source = ctx.b.let(i - before)
        where.append(clamp(source, size))
        inside.append(within(source, size))
    value = x[tuple(where)]
    return tirx.Select(tirx.all(*inside), value, _fill(ctx)) if inside else value


def _mirrored(j: Expr, n: Expr) -> Expr:
    period = tirx.max(2 * (n - 1), index(1))
    j = tirx.floormod(j, period)
    return tirx.min(j, period - j)


_RULES: dict[str, Rule] = {
    "edge": clamp,
    "reflect": _mirrored,
    "wrap": lambda j, n: tirx.floormod(j, tirx.max(n, index(1))),
}
"""By mode, the index to read for an index outside of an axis of extent ``n``."""


def _source(i: Expr, border: Border, size: Expr, rule: Rule) -> Expr:
    """The source index under ``rule``; negative pads crop the input first."""
    before, after = border
    if as_int(before) == 0 and as_int(after) == 0:
        return i
    cut = tirx.max(-before, index(0))
    left = _kept(size, before, after)
    return clamp(cut + rule(i - tirx.max(before, index(0)), left), size)


@sizes("Pad", "com.microsoft.Pad")
def _pad_sizes(ctx: LowerContext) -> list[Expr]:
    table = _table(ctx)
    _write_borders(ctx, table)

    def size(n: Expr, before: Expr, after: Expr) -> Expr:
        extent = n + before + after
        if ctx.attr("mode") == "constant":
            return extent
        kept = _kept(n, before, after)
        missing = tirx.all(kept <= 0, extent > 0)  # there is nothing to repeat
        if ctx.attr("mode") == "reflect":
            missing = missing | (tirx.max(before, after) > tirx.max(kept - 1, index(0)))
        return tirx.Select(missing, index(-1), extent)

    extents = enumerate(ctx.input(0).shape)
    return fresh_sizes(ctx, [size(index(n), table[0, a], table[1, a]) for a, n in extents])


def _kept(size: Expr, before: Expr, after: Expr) -> Expr:
    """The extent of an axis that is left after negative pads."""
    return size + tirx.min(before, index(0)) + tirx.min(after, index(0))
