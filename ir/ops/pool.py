"""Type inference of pools."""

from __future__ import annotations

from ..axes.indexing import regions
from ..axes.map import Combine
from ..axes.reduce import global_pool
from ..axes.window import pool
from ..registry import InferContext, op
from ..traits import Trait
from ..types import Shape, TensorType, Type, tensor
from ..windows import pool_window, require_fit, unpool_shape, window_output
from . import flops
from . import quant_evaluate as evaluate
from .shape_values import dims_of, numel

_MS = "com.microsoft"
_ANCHOR = (Trait.ANCHOR,)


@op(
    "MaxPool", traits=(*_ANCHOR, Trait.SELECTS, Trait.FLOAT_POLYMORPHIC), flops=flops.pool,
    homogeneous=((0,),), axes=pool,
)  # fmt: skip
def infer_max_pool(c: InferContext) -> list[Type]:
    shape = pool_shape(c, c.tensor(0))
    return [c.tensor(0).with_shape(shape), tensor("int64", *shape)]


@op(
    "AveragePool", traits=(*_ANCHOR, Trait.UNORDERED_SUM, Trait.FLOAT_POLYMORPHIC),
    flops=flops.pool,
    homogeneous=((0,),), axes=pool,
)  # fmt: skip
@op(
    "LpPool", traits=_ANCHOR, flops=flops.pool,
    homogeneous=((0,),), axes=pool,
)  # fmt: skip
def infer_pool(c: InferContext) -> list[Type]:
    return [c.tensor(0).with_shape(pool_shape(c, c.tensor(0)))]


@op(
    "QLinearAveragePool",
    domain=_MS,
    arity=(4, 5),
    attributes=("kernel_shape", "pads", "strides"),
    traits=(Trait.ONE_BYTE_TYPE,),
    zero_points={2: 0},
    result_zero_point=4,
    evaluate=evaluate.qlinear_average_pool,
    defaults={"auto_pad": "NOTSET", "ceil_mode": 0, "count_include_pad": 0, "channels_last": 0},
    axes=pool,
)  # fmt: skip
def infer_qlinear_average_pool(c: InferContext) -> list[Type]:
    x = c.tensor(0)
    if not c.attr("channels_last"):
        return [x.with_shape(pool_shape(c, x))]
    batch, *spatial, channels = x.dims
    moved = pool_shape(c, x.with_shape((batch, channels, *spatial)))
    return [x.with_shape((batch, *moved[2:], channels))]


@op(
    "GlobalAveragePool",
    traits=(Trait.REDUCTION, Trait.UNORDERED_SUM, Trait.FLOAT_POLYMORPHIC),
    homogeneous=((0,),), axes=global_pool(Combine.MEAN),
)  # fmt: skip
@op(
    "GlobalMaxPool", traits=(Trait.REDUCTION, Trait.SELECTS, Trait.FLOAT_POLYMORPHIC),
    homogeneous=((0,),), axes=global_pool(Combine.MAX),
)  # fmt: skip
@op(
    "GlobalLpPool", traits=(Trait.REDUCTION,),
    homogeneous=((0,),), axes=global_pool(),
)  # fmt: skip
def infer_global_pool(c: InferContext) -> list[Type]:
    x = c.tensor(0)
    _check_rank(c, x)
    return [x.with_shape((*x.dims[:2], *(1,) * (x.rank - 2)))]


@op(
    "QLinearGlobalAveragePool",
    domain=_MS,
    arity=(5, 5),
    traits=(Trait.ONE_BYTE_TYPE,),
    zero_points={2: 0},
    result_zero_point=4,
    evaluate=evaluate.qlinear_global_average_pool,
    defaults={"channels_last": 0},
    axes=global_pool(),
)  # fmt: skip
def infer_qlinear_global_pool(c: InferContext) -> list[Type]:
    x = c.tensor(0)
    _check_rank(c, x)
    ones = (1,) * (x.rank - 2)
    if c.attr("channels_last"):
        return [x.with_shape((x.dims[0], *ones, x.dims[-1]))]
    return [x.with_shape((*x.dims[:2], *ones))]


def pool_shape(c: InferContext, x: TensorType) -> Shape:
    """Output shape of a pool over ``x`` (N, C, ...)."""
    _check_rank(c, x)
    window = pool_window(c.node, x.dims[2:])
    ceil_mode = bool(c.attr("ceil_mode"))
    require_fit(c, window, x.dims[2:], ceil_mode)
    return (*x.dims[:2], *window_output(window, x.dims[2:], ceil_mode))


def _check_rank(c: InferContext, x: TensorType) -> None:
    if x.rank < 3:
        raise c.error(f"the input {x} must have a rank of at least 3")


@op("MaxUnpool")
def infer_max_unpool(c: InferContext) -> list[Type]:
    x = c.tensor(0)
    _check_rank(c, x)
    implied = unpool_shape(c.node, x.dims)
    c.require_same_shape(c.tensor(1).dims, x.dims, "an index for each element")
    c.require_values(1, 0, numel(implied) - 1, "indices of places that were pooled")
    if not c.has(2):
        return [x.with_shape(implied)]
    c.require_same_shape(c.tensor(2).dims, (x.rank,), "a size for each axis")
    target = dims_of(c.known(2))
    return [x.with_shape(tuple(target or (c.fresh_dim() for _ in x.dims)))]


@op(
    "MaxRoiPool",
    axes=regions,
)  # fmt: skip
def infer_max_roi_pool(c: InferContext) -> list[Type]:
    x, rois = c.tensor(0), c.tensor(1)
    height, width = c.attr("pooled_shape")
    return [x.with_shape((rois.dims[0], x.dims[1], int(height), int(width)))]


__all__ = ["pool_shape"]
