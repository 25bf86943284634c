"""Lowerings of the layout transforms, of pools on blocked layouts, and of requantization."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from tvm import tirx

from ....ir.ops.blocked import picked_channels
from ....ir.windows import Window, pool_window
from ...tir.builder import BufferTensor, TensorExpr, as_int, index, product
from ...tir.numeric import cast
from ..broadcast import aligned
from ..registry import LowerContext, lowering
from .blocked_turn import pack_turned, turns, unpack_turned
from .pool import larger
from .pool_windows import UNROLLED, split_window
from .quant_math import requantize

Expr = Any
Bounds: TypeAlias = "list[tuple[Expr, Expr]]"


@lowering("kiln.PackChannels")
def lower_pack(ctx: LowerContext) -> TensorExpr:
    x = ctx.input(0)
    block, channels = int(ctx.attr("block")), index(x.shape[1])
    padded = as_int(x.shape[1]) is None or int(x.shape[1]) % block != 0
    out = ctx.destination()
    if out is not None and isinstance(x, BufferTensor) and as_int(x.shape[1]) is not None:
        if turns(ctx.b, x, block, product(x.shape[2:])):
            pack_turned(ctx.b, x, out)
            return out

    def load(at: tuple[Expr, ...]) -> Expr:
        n, c, *spatial, lane = at
        channel = c * block + lane
        if not padded:
            return x[(n, channel, *spatial)]
        value = x[(n, tirx.min(channel, channels - 1), *spatial)]
        return tirx.Select(channel < channels, value, tirx.const(0, x.compute_dtype))

    return ctx.lazy(load)


@lowering("kiln.UnpackChannels")
def lower_unpack(ctx: LowerContext) -> TensorExpr:
    x, out = ctx.input(0), ctx.destination()
    block = index(x.shape[-1])
    if out is not None and as_int(out.shape[1]) is not None:
        row = product(out.shape[2:]) if isinstance(x, BufferTensor) else out.shape[-1]
        if turns(ctx.b, x, int(x.shape[-1]), row):
            unpack_turned(ctx.b, x, out)
            return out

    def load(at: tuple[Expr, ...]) -> Expr:
        n, c, *spatial = at
        return x[(n, tirx.floordiv(c, block), *spatial, tirx.floormod(c, block))]

    return ctx.lazy(load)


@lowering("kiln.DepthToSpaceBlocked")
def lower_depth_to_space(ctx: LowerContext) -> TensorExpr:
    x, (kh, kw) = ctx.input(0), ctx.attr("window")
    blocks = ctx.out_shape()[1]

    def load(at: tuple[Expr, ...]) -> Expr:
        n, block, row, column, lane = at
        window = tirx.floormod(row, index(kh)) * kw + tirx.floormod(column, index(kw))
        place = (tirx.floordiv(row, index(kh)), tirx.floordiv(column, index(kw)))
        return x[(n, window * blocks + block, *place, lane)]

    return ctx.lazy(load)


@lowering("kiln.SelectChannels")
def lower_select(ctx: LowerContext) -> TensorExpr:
    """Every vector of lanes is put together from the vectors that its channels lie in."""
    b, out = ctx.b, ctx.result(0)
    block = int(ctx.attr("block"))
    picks = picked_channels(ctx.attr("runs"))
    inputs = [ctx.buffered(i) for i in range(len(ctx.inputs))]
    for start in range(0, len(picks), block):
        here = [(i, *divmod(c, block)) for i, c in picks[start : start + block]]
        vectors = list(dict.fromkeys((i, k) for i, k, _ in here))
        lanes = [vectors.index((i, k)) * block + lane for i, k, lane in here]
        lanes += [lanes[0]] * (block - len(lanes))

        def position(
            at: tuple[Expr, ...], vectors: list[tuple[int, int]] = vectors,
            lanes: list[int] = lanes, target: int = start // block,
        ) -> None:  # fmt: skip
            n, *place = at
            ramp = tirx.Ramp(index(0), index(1), block)
            loaded = [inputs[i].load_raw([n, index(k), *place, ramp]) for i, k in vectors]
            moved = lanes == list(range(block))
            value = loaded[0] if moved else tirx.Shuffle(loaded, [index(v) for v in lanes])
            out.store_raw([n, index(target), *place, ramp], value)

        b.nest((out.shape[0], *out.shape[2:-1]), position, cost=4 * block, sequential_last=True)
    return out


@lowering("kiln.Requantize")
def lower_requantize(ctx: LowerContext) -> TensorExpr:
    x, scale, zero = ctx.input(0), aligned(ctx, 1), aligned(ctx, 2)

    def load(at: tuple[Expr, ...]) -> Expr:
        return requantize(x[at], scale(at), zero(at), ctx.out_dtype())

    return ctx.lazy(load, cost=6 + x.cost)


@lowering("kiln.PoolBlocked")
def lower_pool(ctx: LowerContext) -> TensorExpr:
    """One row of lanes per output position; windows are clipped to the image."""
    x = ctx.buffered(0)
    assert ctx.input_types[0] is not None
    window = pool_window(ctx.node, ctx.input_types[0].dims[2:-1])
    out = ctx.result(0)
    lanes = int(x.shape[-1])
    maximum = ctx.attr("mode") == "max"
    b = ctx.b

    def fold(acc: BufferTensor, at: tuple[Expr, ...], k: Sequence[Expr]) -> None:
        n, c, *place = at
        source = [
            p * window.strides[i] - b.dim(window.begin[i]) + o * window.dilations[i]
            for i, (p, o) in enumerate(zip(place, k, strict=True))
        ]
        with b.lanes(lanes) as v:
            value = x[(n, c, *source, v)]
            acc.store((v,), larger(acc[v], value) if maximum else acc[v] + value)

    loops, written = split_window(window.kernel, UNROLLED if lanes > 1 else 1)
    leaves = bool(ctx.attr("ceil_mode")) or any(p != 0 for p in (*window.begin, *window.end))

    def fold_whole(acc: BufferTensor, at: tuple[Expr, ...]) -> None:
        for k in itertools.product(*map(range, written)):
            fold(acc, at, k)

    def fold_inside(acc: BufferTensor, at: tuple[Expr, ...], bounds: Bounds) -> None:
        with b.grid(*(high - low for low, high in bounds)) as k:
            fold(acc, at, [low + o for (low, _), o in zip(bounds, k, strict=True)])

    def position(at: tuple[Expr, ...]) -> None:
        bounds = [_clip(b, window, i, p, x.shape[2 + i]) for i, p in enumerate(at[2:])]
        acc = b.local((lanes,), x.compute_dtype, "acc")
        start = _lowest(x.compute_dtype) if maximum else tirx.const(0, x.compute_dtype)
        with b.lanes(lanes) as v:
            acc.store((v,), start)
        if loops:
            fold_inside(acc, at, bounds)
        elif not leaves:
            fold_whole(acc, at)
        else:
            full = [(high - low).equal(k) for (low, high), k in zip(bounds, written, strict=True)]
            with b.when(tirx.all(*full)):
                fold_whole(acc, at)
            with b.otherwise():
                fold_inside(acc, at, bounds)
        _finish(ctx, acc, out, at, window, bounds, maximum)

    b.nest(out.shape[:-1], position, cost=lanes * 9, sequential_last=True)
    return out


def _clip(b: Any, window: Window, i: int, p: Expr, extent: Any) -> tuple[Expr, Expr]:
    """The window positions along dim ``i`` that fall inside the image, as [low, high)."""
    step = window.dilations[i]
    start = b.let(p * window.strides[i] - b.dim(window.begin[i]))
    low = tirx.max(index(0), tirx.floordiv(index(step - 1) - start, index(step)))
    room = tirx.floordiv(index(extent) - start + (step - 1), index(step))
    high = tirx.min(index(b.dim(window.kernel[i])), room)
    low = b.let(low, "low")
    return low, b.let(tirx.max(low, high), "high")


def _lowest(dtype: str) -> Expr:
    from ..constants import literal

    return literal(-np.inf, dtype) if dtype.startswith("float") else tirx.min_value(dtype)


def _finish(
    ctx: LowerContext, acc: BufferTensor, out: BufferTensor, at: tuple[Expr, ...], window: Window,
    bounds: Bounds, maximum: bool,
) -> None:  # fmt: skip
    b = ctx.b
    count: Any = None
    if not maximum:
        count = index(1)
        for i, (low, high) in enumerate(bounds):
            extent = (high - low) if not ctx.attr("count_include_pad") else _padded_count(
                ctx, window, i, at[2 + i]
            )  # fmt: skip
            count = count * extent
        count = b.let(cast(count, acc.compute_dtype), "count")
    with b.lanes(as_int(out.shape[-1])) as v:
        out.store((*at, v), acc[v] if maximum else acc[v] / count)


def _padded_count(ctx: LowerContext, window: Window, i: int, p: Expr) -> Expr:
    """Window positions inside the image and its padding (``ceil_mode`` may reach past both)."""
    assert ctx.input_types[0] is not None
    b = ctx.b
    extent = index(b.dim(ctx.input_types[0].dims[2 + i])) + b.dim(window.end[i])
    start = p * window.strides[i] - b.dim(window.begin[i])
    step = window.dilations[i]
    room = tirx.floordiv(extent - start + (step - 1), index(step))
    return tirx.min(index(b.dim(window.kernel[i])), room)
