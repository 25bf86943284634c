"""DeformConv: the input is sampled at the offset kernel positions, then convolved pointwise."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ....ir.windows import conv_window
from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.extents import flatten_index, index, product
from ...tir.numeric import cast
from ..registry import LowerContext, lowering
from .conv import geometry_of, per_channel
from .conv_direct import Convolution, direct_conv, divided
from .conv_rows import Geometry
from .vision_sampling import linear, near, zero_outside


@lowering("DeformConv")
def lower_deform_conv(c: LowerContext) -> TensorExpr:
    """DeformConv-22 with linear interpolation; positions outside the input give zero."""
    b, out = c.b, c.result()
    w = c.buffered(1)
    bias = c.buffered(3) if c.has(3) else None
    sampled = _sampled(c)
    batch, channels, *_ = sampled.shape
    taps = product(w.shape[2:])
    columns = b.view(sampled, (batch, channels * taps, product(out.shape[2:])))
    weights = b.view(w, (w.shape[0], w.shape[1] * taps, 1))
    flat = b.view(out, (*out.shape[:2], columns.shape[2]))
    line = Geometry((1,), (1,), (1,), (0,), (False,))
    dtype = sampled.dtype

    def finish(total: Expr, channel: Expr, _residual: Expr | None) -> Expr:
        return total if bias is None else total + per_channel(bias, channel)

    groups = c.attr("group") or 1
    direct_conv(b, Convolution(columns, weights, line, groups, dtype, dtype, flat, finish))
    return out


def _sampled(c: LowerContext) -> BufferTensor:
    """The input at every kernel position of every output: (N, C, *kernel, *output)."""
    source, weight = c.input_types[0], c.input_types[1]
    assert source is not None and weight is not None
    x, offset = c.buffered(0), c.buffered(2)
    mask = c.buffered(4) if c.has(4) else None
    g = geometry_of(c, conv_window(c.node, source.dims[2:], weight.dims[2:]))
    rank, spatial = len(g.kernel), x.shape[2:]
    per_group = divided(x.shape[1], c.attr("offset_group") or 1)
    taps, dtype = product(g.kernel), x.compute_dtype
    out = c.b.workspace((*x.shape[:2], *g.kernel, *offset.shape[2:]), dtype, "samples")

    def position(d: int, o: Expr, k: Expr, moved: Expr) -> Expr:
        still = o * g.strides[d] - g.begin[d] + k * g.dilations[d]
        return near(c.b, cast(still, dtype) + cast(moved, dtype), spatial[d])

    def body(at: tuple[Expr, ...]) -> None:
        n, channel, k, o = at[0], at[1], at[2 : 2 + rank], at[2 + rank :]
        group = tirx.floordiv(channel, index(per_group))
        tap = group * index(taps) + flatten_index(k, g.kernel)
        places = [
            position(d, o[d], k[d], offset.at(n, tap_axis(group, k, d), *o)) for d in range(rank)
        ]

        def load(where: tuple[Expr, ...]) -> Expr:
            return x.at(n, channel, *where)

        value = linear(c.b, places, lambda where: zero_outside(where, spatial, load))
        if mask is not None:
            value = value * cast(mask.at(n, tap, *o), dtype)
        out.store(at, value)

    def tap_axis(group: Expr, k: tuple[Expr, ...], d: int) -> Any:
        return (group * index(taps) + flatten_index(k, g.kernel)) * rank + d

    c.b.nest(out.shape, body, cost=16 << rank)
    return out
