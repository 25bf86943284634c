"""Lowerings of ops that cut tensors: Slice, CenterCropPad, Col2Im."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ....ir.slices import python_slice
from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import as_int, index, product
from ..constants import literal
from ..registry import LowerContext, lowering, sizes
from .movement_params import (
    At,
    all_known,
    axis_params,
    clamp,
    fresh_sizes,
    int_params,
    is_open,
    spread,
    spread_open,
    within,
    zero,
)

# ---- Slice ---------------------------------------------------------------------------------------


FIRST, END, STEP = range(3)
"""Rows of a slice's table, which has an entry for each axis, with clamped bounds."""


def _slice_table(ctx: LowerContext) -> BufferTensor:
    return ctx.b.workspace((3, ctx.input(0).rank), "int64", "cuts")


def _write_cuts(ctx: LowerContext, table: BufferTensor) -> None:
    """Emit code that fills the table from parameters given at run time.

    The table is in memory. As one expression, the choice of the axes would be too large for TVM's
    simplifier.
    """
    b, x = ctx.b, ctx.input(0)
    extents = [index(e) for e in x.shape]
    _spread_cuts(ctx, table, extents)
    for a, size in enumerate(extents):
        step = b.let(table[STEP, a])
        with b.when(step > 0):
            _clamp_bounds(b, table, a, size, (index(0), index(0)), size)
        with b.when(step < 0):
            _clamp_bounds(b, table, a, size, (index(0), index(-1)), size - 1)


def _spread_cuts(ctx: LowerContext, table: BufferTensor, extents: list[Expr]) -> None:
    """Fill the table with the parameters of each axis, before clamping."""
    x = ctx.input(0)
    if is_open(ctx, 1):
        spread_open(ctx, table, FIRST, 1, [index(0)] * x.rank)
        spread_open(ctx, table, END, 2, extents)
        spread_open(ctx, table, STEP, 4, [index(1)] * x.rank)
        return
    starts, ends = int_params(ctx, 1), int_params(ctx, 2)
    axes = axis_params(ctx, 3, len(starts), x.rank)
    steps = int_params(ctx, 4) if ctx.has(4) else [index(1)] * len(starts)
    spread(table, FIRST, axes, starts, [index(0)] * x.rank)
    spread(table, END, axes, ends, extents)
    spread(table, STEP, axes, steps, [index(1)] * x.rank)


def _clamp_bounds(
    b: Builder, table: BufferTensor, a: int, size: Expr, lows: tuple[Expr, Expr], high: Expr
) -> None:
    for row, low in zip((FIRST, END), lows, strict=True):
        bound = b.let(table[row, a])
        # A bound that is far below 0 must not overflow when the size is added.
        front = tirx.Select(bound < 0, tirx.max(bound, index(-(2**62))) + size, bound)
        table.store((row, a), tirx.min(tirx.max(front, low), high))


def _known_cuts(ctx: LowerContext) -> list[tuple[Expr, Expr]]:
    """First index and step of each axis, if all parameters are constants."""
    x = ctx.input(0)
    starts = int_params(ctx, 1)
    axes = axis_params(ctx, 3, len(starts), x.rank)
    steps = int_params(ctx, 4) if ctx.has(4) else [index(1)] * len(starts)
    out = [(index(0), index(1))] * x.rank
    for axis, start, step in zip(axes, starts, steps, strict=True):
        values = [as_int(e) for e in (axis, start, step)]
        known = [v for v in values if v is not None]
        out[known[0]] = (_first(known[1], known[2], x.shape[known[0]]), index(known[2]))
    return out


def _first(start: int, step: int, extent: Any) -> Expr:
    size = as_int(extent)
    if size is not None:
        return index(python_slice(start, size, step, size).indices(size)[0])
    front = index(start) if start >= 0 else index(extent) + max(start, -(2**62))
    if step > 0:
        return front if start >= 0 else tirx.max(front, index(0))
    return tirx.min(tirx.max(front, index(0)), index(extent) - 1)


@lowering("Slice")
def _slice(ctx: LowerContext) -> TensorExpr:
    x = ctx.input(0)
    if all_known(ctx, (1, 3, 4)):
        parts = _known_cuts(ctx)
    else:
        table = _slice_table(ctx)
        ctx.b.nest((), lambda _at: _write_cuts(ctx, table))
        parts = [(table[FIRST, a], table[STEP, a]) for a in range(x.rank)]

    def load(at: At) -> Expr:
        return x[tuple(first + i * step for (first, step), i in zip(parts, at, strict=True))]

    return ctx.lazy(load, cost=x.cost)


@sizes("Slice")
def _slice_sizes(ctx: LowerContext) -> list[Expr]:
    table = _slice_table(ctx)
    _write_cuts(ctx, table)
    out = []
    for a in range(ctx.input(0).rank):
        first, end, step = (ctx.b.let(table[row, a]) for row in (FIRST, END, STEP))
        span = tirx.Select(step > 0, end - first, first - end)
        size = ctx.b.let(tirx.max(tirx.max(step, -step), index(1)))
        out.append(tirx.floordiv(tirx.max(span, index(0)) + size - 1, size))
    return fresh_sizes(ctx, out)


@lowering("kiln.Slice")
def _dim_slice(ctx: LowerContext) -> TensorExpr:
    x = ctx.input(0)
    starts, steps = ([index(ctx.b.dim(d)) for d in ctx.attr(name)] for name in ("starts", "steps"))

    def load(at: At) -> Expr:
        return x[tuple(s + i * d for s, i, d in zip(starts, at, steps, strict=True))]

    return ctx.lazy(load, cost=x.cost)


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
    """Each pixel is the sum of the block elements that overlap it."""
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
                # TVM divides a difference wrongly if it knows that there is no remainder.
                position = b.opaque(at[2 + k] + pads[k] - offset[k] * dilations[k])
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
    """The sizes of the image; channels are negative if rows and columns do not fit the rest."""
    b, x = ctx.b, ctx.input(0)
    rows, columns = index(x.shape[1]), index(x.shape[2])
    image = [b.let(index(v)) for v in int_params(ctx, 1)]
    block = [b.let(index(v)) for v in int_params(ctx, 2)]
    fits = [tirx.all(e >= 1, e <= rows) for e in block]
    area = b.let(tirx.max(index(product(block)), index(1)))
    places = index(1)
    for k, (extent, size) in enumerate(zip(block, image, strict=True)):
        stride, dilation, before, after = _col2im_window(ctx, k, len(image))
        free = b.let(size + (before + after - 1) - dilation * (extent - 1))
        fits.append(free >= 0)
        places = b.let(places * (tirx.floordiv(free, index(stride)) + 1))
    fits += [tirx.floormod(rows, area).equal(index(0)), places.equal(columns)]
    channels = tirx.Select(tirx.all(*fits), tirx.floordiv(rows, area), index(-1))
    return fresh_sizes(ctx, [x.shape[0], channels, *image])


def _col2im_window(ctx: LowerContext, k: int, count: int) -> tuple[int, int, int, int]:
    """Stride, dilation and pads along dim ``k`` of the image."""
    pads = ctx.attr("pads") or (0,) * (2 * count)
    strides, dilations = (ctx.attr(n) or (1,) * count for n in ("strides", "dilations"))
    return strides[k], dilations[k], pads[k], pads[count + k]
