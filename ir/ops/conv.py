"""Type inference of convolutions."""

from __future__ import annotations

from ..axes.map import Combine
from ..axes.window import convolution, deformable_convolution, transposed_convolution
from ..dims import Dim
from ..graph import Node
from ..registry import InferContext, op
from ..traits import Trait
from ..types import Shape, TensorType, Type
from ..windows import conv_window, require_fit, transpose_window, window_output
from . import flops
from .quant_conditions import require_entries, require_single
from .quant_evaluate import fused_conv
from .shape_values import numel

_HEAVY = (Trait.ANCHOR, Trait.CONTRACTION)
_FLOATS = (*_HEAVY, Trait.UNORDERED_SUM, Trait.FLOAT_POLYMORPHIC)


def _summed_axes(_node: Node, index: int) -> tuple[int, ...]:
    """All axes of the weights except for the filters."""
    return (1, 2, 3, 4) if index == 1 else ()


@op(
    "Conv", traits=_FLOATS, flops=flops.convolution(1), summed_axes=_summed_axes,
    homogeneous=((1, 2),), axes=convolution(bias=2, combine=Combine.SUM),
)  # fmt: skip
@op("FusedConv", domain="com.microsoft", arity=(2, 4), evaluate=fused_conv,
    traits=(Trait.CONTRACTION,), flops=flops.convolution(1),
    axes=convolution(bias=2, residual=3, combine=Combine.SUM),
)  # fmt: skip
def infer_conv(c: InferContext) -> list[Type]:
    x, w = c.tensor(0), c.tensor(1)
    require_bias(c, 2, w.dims[0])
    return [x.with_shape(conv_shape(c, x, w))]


@op(
    "ConvInteger", traits=_HEAVY, zero_points={2: 0, 3: 1}, flops=flops.convolution(1),
    axes=convolution(by_filter=(3,), combine=Combine.SUM),
)  # fmt: skip
def infer_conv_integer(c: InferContext) -> list[Type]:
    x, w = c.tensor(0), c.tensor(1)
    require_single(c, 2)
    require_entries(c, 3, w.dims[0], "filter")
    return [x.with_dtype("int32").with_shape(conv_shape(c, x, w))]


@op(
    "QLinearConv", traits=_HEAVY, zero_points={2: 0, 5: 3}, result_zero_point=7,
    flops=flops.convolution(3),
    axes=convolution(0, 3, bias=8, by_filter=(4, 5)),
)  # fmt: skip
def infer_qlinear_conv(c: InferContext) -> list[Type]:
    x, w, zero = c.tensor(0), c.tensor(3), c.tensor(7)
    require_single(c, 1, 2, 6, 7)
    require_entries(c, 4, w.dims[0], "filter")
    require_entries(c, 5, w.dims[0], "filter")
    require_bias(c, 8, w.dims[0])
    return [x.with_dtype(zero.dtype).with_shape(conv_shape(c, x, w))]


@op(
    "DeformConv", traits=(Trait.ANCHOR,),
    axes=deformable_convolution,
)  # fmt: skip
def infer_deform_conv(c: InferContext) -> list[Type]:
    x, w, offset = c.tensor(0), c.tensor(1), c.tensor(2)
    _check_ranks(c, x, w)
    _require_deform(c, x, w, offset)
    return [x.with_shape((x.dims[0], w.dims[0], *offset.dims[2:]))]


def _require_deform(c: InferContext, x: TensorType, w: TensorType, offset: TensorType) -> None:
    """Record what ONNX's DeformConv-22 requires of the sizes of its inputs."""
    groups, offset_groups = c.attr("group") or 1, c.attr("offset_group") or 1
    c.require_equal(x.dims[1], w.dims[1] * groups, f"channels that fit {groups} groups of weights")
    c.require_multiple(w.dims[0], groups, f"output channels that divide into {groups} groups")
    c.require_multiple(x.dims[1], offset_groups, "channels that divide into groups of offsets")
    _require_kernel(c, w)
    window = conv_window(c.node, x.dims[2:], w.dims[2:])
    require_fit(c, window, x.dims[2:])
    places = numel(w.dims[2:])
    image = window_output(window, x.dims[2:])
    shape = (x.dims[0], len(image) * offset_groups * places, *image)
    c.require_same_shape(offset.dims, shape, "one offset for each place of the window")
    require_bias(c, 3, w.dims[0])
    if c.has(4):
        shape = (x.dims[0], offset_groups * places, *image)
        c.require_same_shape(c.tensor(4).dims, shape, "one mask for each place of the window")


def require_bias(c: InferContext, i: int, filters: Dim) -> None:
    """Record that input ``i``, if it is given, has one number for each of ``filters``."""
    if c.has(i):
        c.require_same_shape(c.tensor(i).dims, (filters,), "a bias with one entry a filter")


@op(
    "ConvTranspose", traits=_FLOATS, flops=flops.transposed_convolution,
    homogeneous=((1, 2),), axes=transposed_convolution,
)  # fmt: skip
def infer_conv_transpose(c: InferContext) -> list[Type]:
    x, w = c.tensor(0), c.tensor(1)
    _check_ranks(c, x, w)
    groups = c.attr("group") or 1
    c.require_equal(x.dims[1], w.dims[0], "as many channels as the weights have")
    c.require_multiple(x.dims[1], groups, f"channels that divide into {groups} groups")
    require_bias(c, 2, w.dims[1] * groups)
    _require_kernel(c, w)
    _, spatial = transpose_window(c.node, x.dims[2:], w.dims[2:])
    for extent in spatial:
        c.require_at_most(0, extent, "an image larger than what its pads cut off")
    return [x.with_shape((x.dims[0], w.dims[1] * c.attr("group"), *spatial))]


def conv_shape(c: InferContext, x: TensorType, w: TensorType) -> Shape:
    """Output shape of a convolution of ``x`` (N, C, ...) by ``w`` (M, C/group, ...)."""
    _check_ranks(c, x, w)
    groups = c.attr("group") or 1
    c.require_equal(x.dims[1], w.dims[1] * groups, f"channels that fit {groups} groups of weights")
    c.require_multiple(w.dims[0], groups, f"output channels that divide into {groups} groups")
    _require_kernel(c, w)
    window = conv_window(c.node, x.dims[2:], w.dims[2:])
    require_fit(c, window, x.dims[2:])
    return (x.dims[0], w.dims[0], *window_output(window, x.dims[2:]))


def _require_kernel(c: InferContext, w: TensorType) -> None:
    """Record that the attribute kernel_shape, if it is given, is that of the weights."""
    given = c.attr("kernel_shape")
    if given:
        c.require_same_shape(w.dims[2:], tuple(given), "weights of its kernel_shape")


def _check_ranks(c: InferContext, x: TensorType, w: TensorType) -> None:
    if x.rank < 3 or x.rank != w.rank:
        raise c.error(f"the input {x} and the weight {w} must have one rank of at least 3")


__all__ = ["conv_shape", "require_bias"]
