"""Type inference of convolutions."""

from __future__ import annotations

from ..dims import is_static
from ..registry import InferContext, op
from ..types import Shape, TensorType, Type
from ..windows import conv_window, transpose_window, window_output
from .quant_evaluate import fused_conv


@op("Conv")
@op("FusedConv", domain="com.microsoft", arity=(2, 4), evaluate=fused_conv)
def infer_conv(c: InferContext) -> list[Type]:
    x = c.tensor(0)
    return [x.with_shape(conv_shape(c, x, c.tensor(1)))]


@op("ConvInteger")
def infer_conv_integer(c: InferContext) -> list[Type]:
    x = c.tensor(0)
    return [x.with_dtype("int32").with_shape(conv_shape(c, x, c.tensor(1)))]


@op("QLinearConv")
def infer_qlinear_conv(c: InferContext) -> list[Type]:
    x, w, zero = c.tensor(0), c.tensor(3), c.tensor(7)
    return [x.with_dtype(zero.dtype).with_shape(conv_shape(c, x, w))]


@op("DeformConv")
def infer_deform_conv(c: InferContext) -> list[Type]:
    x, w, offset = c.tensor(0), c.tensor(1), c.tensor(2)
    _check_ranks(c, x, w)
    return [x.with_shape((x.dims[0], w.dims[0], *offset.dims[2:]))]


@op("ConvTranspose")
def infer_conv_transpose(c: InferContext) -> list[Type]:
    x, w = c.tensor(0), c.tensor(1)
    _check_ranks(c, x, w)
    _, spatial = transpose_window(c.node, x.dims[2:], w.dims[2:])
    return [x.with_shape((x.dims[0], w.dims[1] * c.attr("group"), *spatial))]


def conv_shape(c: InferContext, x: TensorType, w: TensorType) -> Shape:
    """Output shape of a convolution of ``x`` (N, C, ...) by ``w`` (M, C/group, ...)."""
    _check_ranks(c, x, w)
    groups = c.attr("group") or 1
    channels = w.dims[1] * groups
    if is_static(channels) and is_static(x.dims[1]) and channels != x.dims[1]:
        raise c.error(f"{x.dims[1]} channels do not fit weights {w} in {groups} groups")
    if is_static(w.dims[0]) and w.dims[0] % groups:
        raise c.error(f"{w.dims[0]} output channels do not divide into {groups} groups")
    window = conv_window(c.node, x.dims[2:], w.dims[2:])
    return (x.dims[0], w.dims[0], *window_output(window, x.dims[2:]))


def _check_ranks(c: InferContext, x: TensorType, w: TensorType) -> None:
    if x.rank < 3 or x.rank != w.rank:
        raise c.error(f"the input {x} and the weight {w} must have one rank of at least 3")


__all__ = ["conv_shape"]
