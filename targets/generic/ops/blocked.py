"""Lowerings of the layout transforms and of requantization."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ....ir.ops.blocked import picked_channels
from ...tir.builder import BufferTensor, TensorExpr
from ...tir.extents import as_int, index, product
from ...tir.numeric import cast
from ..broadcast import aligned
from ..registry import LowerContext, lowering
from .blocked_turn import pack_turned, turns, unpack_turned
from .quant_math import rounded

Expr = Any


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
    """Each vector of channels is shuffled together from the vectors that hold its channels."""
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

    def steps(at: tuple[Expr, ...]) -> Expr:
        return cast(x[at], "float32") * scale(at)

    zeros = ctx.input_types[2]
    assert zeros is not None
    return rounded(ctx, steps, zero, 6 + x.cost, zeros.numel == 1)
