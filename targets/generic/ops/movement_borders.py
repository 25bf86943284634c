"""Lowerings of ops that cut tensors and put borders around them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...tir.builder import Expr, TensorExpr, as_int, index, product
from ..constants import literal
from ..registry import LowerContext, lowering, sizes
from .movement_params import (
    At,
    clamp,
    fresh_sizes,
    int_params,
    scalar_param,
    within,
    zero,
)

# ---- axes named at run time ----------------------------------------------------------------------


def per_axis(axes: list[Expr], values: list[Expr], rank: int, otherwise: list[Expr]) -> list[Expr]:
    """For each of ``rank`` axes the value that goes with it, or its entry of ``otherwise``."""
    out = list(otherwise)
    for axis, value in zip(axes, values, strict=True):
        known = as_int(axis)
        if known is not None:
            out[known % rank] = value
            continue
        for i in range(rank):
            named = axis.equal(index(i)) | axis.equal(index(i - rank))
            out[i] = tirx.Select(named, value, out[i])
    return out


def _axes(ctx: LowerContext, i: int, count: int) -> list[Expr]:
    return int_params(ctx, i) if ctx.has(i) else [index(k) for k in range(count)]


# ---- Slice ---------------------------------------------------------------------------------------


@dataclass
class _Cut:
    """One axis of a slice: its first index (for a step either way), its end, its step."""

    first: Expr
    end: Expr
    step: Expr


def _cuts(ctx: LowerContext) -> list[_Cut]:
    """The slices of all axes, bounds counted from the front and clamped."""
    x = ctx.input(0)
    starts, ends = int_params(ctx, 1), int_params(ctx, 2)
    axes = _axes(ctx, 3, len(starts))
    steps = int_params(ctx, 4) if ctx.has(4) else [index(1)] * len(starts)
    sizes_ = [index(e) for e in x.shape]
    start = per_axis(axes, starts, x.rank, [index(0)] * x.rank)
    end = per_axis(axes, ends, x.rank, sizes_)
    step = per_axis(axes, steps, x.rank, [index(1)] * x.rank)
    return [_clamped(*parts) for parts in zip(start, end, step, sizes_, strict=True)]


def _clamped(start: Expr, end: Expr, step: Expr, size: Expr) -> _Cut:
    known = [v for v in map(as_int, (start, end, step, size)) if v is not None]
    if len(known) == 4:
        return _Cut(*map(index, slice(*known[:3]).indices(known[3])))
    forward = step > 0
    low = tirx.Select(forward, index(0), index(-1))
    high = tirx.Select(forward, size, size - 1)
    first, last = (_between(_from_front(v, size), low, high) for v in (start, end))
    return _Cut(first, last, step)


def _from_front(i: Expr, size: Expr) -> Expr:
    known = as_int(i)
    if known is not None:
        return i if known >= 0 else size + max(known, -(2**62))
    # Far-off bounds must not overflow when the size is added.
    return tirx.Select(i < 0, tirx.max(i, index(-(2**62))) + size, i)


def _between(i: Expr, low: Expr, high: Expr) -> Expr:
    return tirx.max(tirx.min(i, high), low)


@lowering("Slice")
def _slice(ctx: LowerContext) -> TensorExpr:
    x = ctx.input(0)

    def load(at: At) -> Expr:
        cuts = _cuts(ctx)
        return x[tuple(c.first + i * c.step for c, i in zip(cuts, at, strict=True))]

    return ctx.lazy(load, cost=x.cost)


@sizes("Slice")
def _slice_sizes(ctx: LowerContext) -> list[Expr]:
    out = []
    for c in _cuts(ctx):
        span = tirx.Select(c.step > 0, c.end - c.first, c.first - c.end)
        step = tirx.max(tirx.max(c.step, -c.step), index(1))
        out.append(tirx.floordiv(tirx.max(span, index(0)) + step - 1, step))
    return fresh_sizes(ctx, out)


@lowering("kiln.Slice")
def _dim_slice(ctx: LowerContext) -> TensorExpr:
    x = ctx.input(0)
    starts, steps = ([index(ctx.b.dim(d)) for d in ctx.attr(name)] for name in ("starts", "steps"))

    def load(at: At) -> Expr:
        return x[tuple(s + i * d for s, i, d in zip(starts, at, steps, strict=True))]

    return ctx.lazy(load, cost=x.cost)


# ---- Pad -----------------------------------------------------------------------------------------


def _pads(ctx: LowerContext) -> list[tuple[Expr, Expr]]:
    """What each axis gets before and after."""
    rank = ctx.input(0).rank
    pads = int_params(ctx, 1)
    count = len(pads) // 2
    axes = _axes(ctx, 3, count)
    none = [index(0)] * rank
    before = per_axis(axes, pads[:count], rank, none)
    return list(zip(before, per_axis(axes, pads[count:], rank, none), strict=True))


@lowering("Pad", "com.microsoft.Pad")
def _pad(ctx: LowerContext) -> TensorExpr:
    x, mode = ctx.input(0), ctx.attr("mode")
    known = _known_pads(ctx)
    place = ctx.destination()
    if mode == "constant" and place is not None and known is not None:
        ctx.b.nest(place.shape, lambda at: place.store(at, _fill(ctx)))
        ctx.b.nest(
            x.shape,
            lambda at: place.store([i + b for i, (b, _) in zip(at, known, strict=True)], x[at]),
            1 + x.cost,
        )
        return place
    if mode == "constant":
        return ctx.lazy(lambda at: _constant_pad(ctx, at), cost=x.cost + 3 * x.rank)

    def load(at: At) -> Expr:
        where = (
            _SOURCES[mode](i, before, after, index(size))
            for i, (before, after), size in zip(at, _pads(ctx), x.shape, strict=True)
        )
        return x[tuple(where)]

    return ctx.lazy(load, cost=x.cost + 4 * x.rank)


def _known_pads(ctx: LowerContext) -> list[tuple[int, int]] | None:
    """The pads where all are constants that cut nothing off."""
    if ctx.known(1) is None or (ctx.has(3) and ctx.known(3) is None):
        return None
    out = []
    for before, after in _pads(ctx):
        b, a = as_int(before), as_int(after)
        if b is None or a is None or b < 0 or a < 0:
            return None
        out.append((b, a))
    return out


def _fill(ctx: LowerContext) -> Expr:
    return scalar_param(ctx, 2) if ctx.has(2) else zero(ctx)


def _constant_pad(ctx: LowerContext, at: At) -> Expr:
    x = ctx.input(0)
    where, inside = [], []
    for i, (before, after), size in zip(at, _pads(ctx), x.shape, strict=True):
        if as_int(before) == 0 and as_int(after) == 0:
            where.append(i)
            continue
        source = i - before
        where.append(clamp(source, size))
        inside.append(within(source, size))
    value = x[tuple(where)]
    return tirx.Select(tirx.all(*inside), value, _fill(ctx)) if inside else value


def _edge(i: Expr, before: Expr, after: Expr, size: Expr) -> Expr:
    return _inside(i, before, after, size, lambda j, n: clamp(j, n))


def _reflect(i: Expr, before: Expr, after: Expr, size: Expr) -> Expr:
    def mirrored(j: Expr, n: Expr) -> Expr:
        period = tirx.max(2 * (n - 1), index(1))
        j = tirx.floormod(j, period)
        return tirx.min(j, period - j)

    return _inside(i, before, after, size, mirrored)


def _wrap(i: Expr, before: Expr, after: Expr, size: Expr) -> Expr:
    return _inside(i, before, after, size, lambda j, n: tirx.floormod(j, tirx.max(n, index(1))))


def _inside(i: Expr, before: Expr, after: Expr, size: Expr, rule: Any) -> Expr:
    """The source index under ``rule``; negative pads first cut the input."""
    if as_int(before) == 0 and as_int(after) == 0:
        return i
    cut = tirx.max(-before, index(0))
    left = size + tirx.min(before, index(0)) + tirx.min(after, index(0))
    return clamp(cut + rule(i - tirx.max(before, index(0)), left), size)


_SOURCES = {"edge": _edge, "reflect": _reflect, "wrap": _wrap}


@sizes("Pad", "com.microsoft.Pad")
def _pad_sizes(ctx: LowerContext) -> list[Expr]:
    pairs = zip(ctx.input(0).shape, _pads(ctx), strict=True)
    return fresh_sizes(ctx, [index(n) + before + after for n, (before, after) in pairs])


# ---- CenterCropPad -------------------------------------------------------------------------------


@lowering("CenterCropPad")
def _center_crop_pad(ctx: LowerContext) -> TensorExpr:
    x, out_shape = ctx.input(0), ctx.out_shape()
    have, want = ctx.input_types[0], ctx.types[0].dims
    assert have is not None

    def load(at: At) -> Expr:
        where, inside = [], []
        for k, i in enumerate(at):
            if have.dims[k] == want[k]:
                where.append(i)
                continue
            size, target = index(x.shape[k]), index(out_shape[k])
            source = i + tirx.truncdiv(size - target, index(2))
            where.append(clamp(source, size))
            inside.append(within(source, size))
        value = x[tuple(where)]
        return tirx.Select(tirx.all(*inside), value, zero(ctx)) if inside else value

    return ctx.lazy(load, cost=x.cost + 3 * x.rank)


@sizes("CenterCropPad")
def _center_crop_pad_sizes(ctx: LowerContext) -> list[Expr]:
    x = ctx.input(0)
    given = ctx.attr("axes")
    axes = range(x.rank) if given is None else [a % x.rank for a in given]
    out = list(x.shape)
    for a, target in zip(axes, int_params(ctx, 1), strict=True):
        out[a] = target
    return fresh_sizes(ctx, out)


# ---- Col2Im --------------------------------------------------------------------------------------


@lowering("Col2Im")
def _col2im(ctx: LowerContext) -> TensorExpr:
    """Each pixel adds up the block elements that fell on it."""
    b, x, out = ctx.b, ctx.input(0), ctx.result()
    count = out.rank - 2
    strides = ctx.attr("strides") or (1,) * count
    dilations = ctx.attr("dilations") or (1,) * count
    pads = ctx.attr("pads") or (0,) * (2 * count)

    def blocks(k: int, extent: Expr) -> Expr:
        reach = index(out.shape[2 + k]) + pads[k] + pads[count + k] - dilations[k] * (extent - 1)
        return tirx.floordiv(reach - 1, index(strides[k])) + 1

    def body(at: At) -> None:
        block = [b.let(v) for v in int_params(ctx, 2)]
        grid = [b.let(blocks(k, e)) for k, e in enumerate(block)]
        total = b.scalar(x.compute_dtype, literal(0, x.dtype))
        with b.grid(*block) as offset:
            row, column, inside = at[1], index(0), []
            for k in range(count):
                position = b.let(at[2 + k] + pads[k] - offset[k] * dilations[k])
                number = tirx.floordiv(position, index(strides[k]))
                inside += [
                    tirx.floormod(position, index(strides[k])).equal(index(0)),
                    within(number, grid[k]),
                ]
                row, column = row * block[k] + offset[k], column * grid[k] + number
            with b.when(tirx.all(*inside)):
                total.set(total.get() + x[at[0], row, column])
        out.store(at, total.get())

    b.nest(out.shape, body, 64)
    return out


@sizes("Col2Im")
def _col2im_sizes(ctx: LowerContext) -> list[Expr]:
    x = ctx.input(0)
    area = tirx.max(index(product(int_params(ctx, 2))), index(1))
    channels = tirx.floordiv(index(x.shape[1]), area)
    return fresh_sizes(ctx, [x.shape[0], channels, *int_params(ctx, 1)])
