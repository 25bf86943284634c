"""Type inference of softmax and the normalizations."""

from __future__ import annotations

from ..axes.reduce import (
    along_axis,
    batch_norm,
    group_norm,
    instance_norm,
    layer_norm,
    local_response,
    mean_variance,
    softmax,
)
from ..onnx_types import element_type
from ..registry import InferContext, op
from ..shapes import normalize_axes, normalize_axis
from ..traits import Trait
from ..types import TensorType, Type

_NORM = (Trait.REDUCTION, Trait.FLOAT_POLYMORPHIC)


@op(
    "Softmax", traits=(*_NORM, Trait.NONNEGATIVE, Trait.IGNORES_ZERO_SIGN),
    axes=softmax,
)  # fmt: skip
@op(
    "LogSoftmax", traits=_NORM,
    axes=softmax,
)  # fmt: skip
@op(
    "LpNormalization", traits=(Trait.REDUCTION,),
    axes=softmax,
)  # fmt: skip
@op(
    "Hardmax", traits=(Trait.REDUCTION,),
    axes=along_axis,
)  # fmt: skip
def _infer_along_axis(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    normalize_axis(ctx.attr("axis"), x.rank)
    if ctx.node.op == "LpNormalization" and ctx.attr("p") not in (1, 2):
        raise ctx.error(f"p must be 1 or 2, not {ctx.attr('p')}")
    return [x]


@op(
    "MeanVarianceNormalization", traits=(Trait.REDUCTION,),
    axes=mean_variance,
)  # fmt: skip
def _infer_mean_variance(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    normalize_axes(ctx.attr("axes"), x.rank)
    return [x]


@op(
    "LRN", traits=(Trait.REDUCTION,),
    axes=local_response,
)  # fmt: skip
def _infer_lrn(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    if x.rank < 2:
        raise ctx.error(f"input must have a batch and a channel axis, not {x}")
    if ctx.attr("size") < 1:
        raise ctx.error(f"size must be positive, not {ctx.attr('size')}")
    return [x]


def channels_of(ctx: InferContext, x: TensorType, parameters: range) -> None:
    """Check that the inputs ``parameters`` are vectors as long as the channel axis of ``x``."""
    if x.rank < 2:
        raise ctx.error(f"input must have a batch and a channel axis, not {x}")
    for i in parameters:
        p = ctx.tensor(i)
        if p.rank != 1:
            raise ctx.error(f"input {i} must be a vector, not {p}")
        ctx.require_equal(p.dims[0], x.dims[1], "parameters for each channel")


@op(
    "InstanceNormalization", traits=(*_NORM, Trait.UNORDERED_SUM),
    homogeneous=((1, 2),), axes=instance_norm,
)  # fmt: skip
def _infer_instance(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    channels_of(ctx, x, range(1, 3))
    return [x]


@op(
    "GroupNormalization", traits=(*_NORM, Trait.UNORDERED_SUM),
    homogeneous=((1, 2),), axes=group_norm,
)  # fmt: skip
def _infer_group(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    channels_of(ctx, x, range(1, 3))
    groups = ctx.attr("num_groups")
    if groups < 1:
        raise ctx.error(f"num_groups must be positive, not {groups}")
    ctx.require_multiple(x.dims[1], groups, "a number of groups that divides the channels")
    return [x]


@op(
    "BatchNormalization", traits=(Trait.UNORDERED_SUM, Trait.FLOAT_POLYMORPHIC),
    homogeneous=((1, 2),), axes=batch_norm,
)  # fmt: skip
def _infer_batch(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    if x.rank == 1:  # no channel axis: one channel
        return [x]
    channels_of(ctx, x, range(1, 5))
    if not ctx.attr("training_mode"):
        if len(ctx.node.outputs) > 1:
            raise ctx.error("has running statistics as outputs but training_mode is 0")
        return [x]
    statistics = ctx.tensor(3)
    return [x, statistics, statistics]


@op(
    "LayerNormalization", traits=(*_NORM, Trait.UNORDERED_SUM),
    homogeneous=((1, 2),), axes=layer_norm,
)  # fmt: skip
def _infer_layer(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    axis = normalize_axis(ctx.attr("axis"), x.rank)
    for i in (1, 2):
        if ctx.has(i):
            ctx.broadcast_to(ctx.tensor(i).dims, x.dims, "scale and bias")
    shape = (*x.dims[:axis], *([1] * (x.rank - axis)))
    stash = TensorType(element_type(ctx.attr("stash_type")), shape)
    return [x, stash, stash]


@op(
    "RMSNormalization", traits=_NORM,
    homogeneous=((1,),), axes=layer_norm,
)  # fmt: skip
def _infer_rms(ctx: InferContext) -> list[Type]:
    x, scale = ctx.tensor(0), ctx.tensor(1)
    normalize_axis(ctx.attr("axis"), x.rank)
    ctx.broadcast_to(scale.dims, x.dims, "a scale")
    return [x.with_dtype(scale.dtype)]
