"""Lowerings of Conv and its integer and fused relatives."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from ....ir.windows import Window, conv_window
from ...tir.builder import Expr, TensorExpr
from ..registry import LowerContext, lowering
from .conv_direct import Convolution, direct_conv
from .conv_rows import Geometry
from .quant_math import centered, entry_index, requantize, scalar_of
from .rnn_activations import fused_activation


def geometry_of(c: LowerContext, window: Window) -> Geometry:
    """A window's extents as expressions of this kernel."""
    guarded = tuple(b != 0 or e != 0 for b, e in zip(window.begin, window.end, strict=True))
    return Geometry(
        tuple(c.b.dim(k) for k in window.kernel),
        window.strides,
        window.dilations,
        tuple(c.b.dim(p) for p in window.begin),
        guarded,
    )


def window_of(c: LowerContext, x: int, w: int) -> Geometry:
    """The window of a convolution of input ``x`` by weight ``w``."""
    source, weight = c.input_types[x], c.input_types[w]
    assert source is not None and weight is not None
    return geometry_of(c, conv_window(c.node, source.dims[2:], weight.dims[2:]))


def per_channel(t: TensorExpr, channel: Expr) -> Expr:
    """The entry of a per-tensor or per-channel parameter."""
    if t.rank == 0:
        return t[()]
    return t[entry_index(channel, t.shape[0])]


@lowering("Conv")
def lower_conv(c: LowerContext) -> TensorExpr:
    """Conv-22: sums in float32 (float64 for float64)."""
    x, w, out = c.input(0), c.input(1), c.result()
    bias = c.buffered(2) if c.has(2) else None
    dtype = x.compute_dtype

    def finish(total: Expr, channel: Expr, _residual: Expr | None) -> Expr:
        return total if bias is None else total + per_channel(bias, channel)

    groups = c.attr("group") or 1
    direct_conv(c.b, Convolution(x, w, window_of(c, 0, 1), groups, dtype, dtype, out, finish))
    return out


@lowering("ConvInteger")
def lower_conv_integer(c: LowerContext) -> TensorExpr:
    """ConvInteger-10: exact sums in int32 of values less their zero points."""
    x_zero = c.input(2) if c.has(2) else None
    w_zero = c.input(3) if c.has(3) else None
    x = _centered(c, 0, x_zero, lambda t, _at: scalar_of(t))
    w = _centered(c, 1, w_zero, lambda t, at: per_channel(t, at[0]))
    out = c.result()
    conv = Convolution(
        x, w, window_of(c, 0, 1), c.attr("group") or 1, "int16", "int32", out,
        lambda total, _channel, _residual: total,
    )  # fmt: skip
    direct_conv(c.b, conv)
    return out


@lowering("QLinearConv")
def lower_qlinear_conv(c: LowerContext) -> TensorExpr:
    """QLinearConv-10: exact sums in int32, requantized in float32 by output channel."""
    x = _centered(c, 0, c.input(2), lambda t, _at: scalar_of(t))
    w = _centered(c, 3, c.input(5), lambda t, at: per_channel(t, at[0]))
    bias = c.buffered(8) if c.has(8) else None
    out = c.result()

    def finish(total: Expr, channel: Expr, _residual: Expr | None) -> Expr:
        scale = scalar_of(c.input(1)) * per_channel(c.input(4), channel) / scalar_of(c.input(6))
        total = total if bias is None else total + per_channel(bias, channel)
        return requantize(c.b, total, scale, scalar_of(c.input(7)), out.dtype)

    conv = Convolution(
        x, w, window_of(c, 0, 3), c.attr("group") or 1, "int16", "int32", out, finish
    )
    direct_conv(c.b, conv)
    return out


def _centered(
    c: LowerContext, i: int, zero: TensorExpr | None,
    entry: Callable[[TensorExpr, tuple[Expr, ...]], Expr],
) -> TensorExpr:  # fmt: skip
    """Input ``i`` less its zero point as int16, which holds every difference of 8-bit values."""
    none = tirx.const(0, "int32")
    return centered(c.input(i), lambda at: none if zero is None else entry(zero, at), "int16")


@lowering("com.microsoft.FusedConv")
def lower_fused_conv(c: LowerContext) -> TensorExpr:
    """FusedConv-1: ``activation(Conv(x, w) + bias + z)``."""
    x, w, out = c.input(0), c.input(1), c.result()
    bias = c.buffered(2) if c.has(2) else None
    residual = c.buffered(3) if c.has(3) else None
    activate = fused_activation(c)

    def finish(total: Expr, channel: Expr, other: Expr | None) -> Expr:
        total = total if bias is None else total + per_channel(bias, channel)
        return activate(c.b.let(total if other is None else total + other))

    dtype = x.compute_dtype
    conv = Convolution(
        x, w, window_of(c, 0, 1), c.attr("group") or 1, dtype, dtype, out, finish, residual
    )
    direct_conv(c.b, conv)
    return out
