"""Dropout and the ops that draw random numbers.

Numbers come from the counter-based generator Philox4x32-10, keyed by the attribute ``seed`` or,
without one, by the node's name; element ``i`` uses counter ``i``. Every run of an artifact
therefore draws the same numbers.
"""

from __future__ import annotations

from ..axes.pointwise import dropout
from ..onnx_types import element_type
from ..registry import InferContext, op
from ..traits import Trait
from ..types import TensorType, Type, dtype
from .elementwise import ELEMENTWISE, floating


@op(
    "Dropout", traits=(*ELEMENTWISE, Trait.STOCHASTIC),
    axes=dropout,
)  # fmt: skip
def _dropout(ctx: InferContext) -> list[Type]:
    x = floating(ctx)
    ctx.require_numbers(1, "a ratio of at least 0 and below 1", low=0, below=1, at=0)
    return [x, x.with_dtype("bool")]


def _like(ctx: InferContext) -> TensorType:
    x = ctx.tensor(0)
    named = ctx.attr("dtype")
    return x if named is None else x.with_dtype(element_type(named))


@op("Bernoulli", traits=(Trait.STOCHASTIC,))
def _bernoulli(ctx: InferContext) -> list[Type]:
    floating(ctx)
    return [_like(ctx)]


@op("RandomNormalLike", "RandomUniformLike", traits=(Trait.STOCHASTIC, Trait.SHAPE_ONLY))
def _random_like(ctx: InferContext) -> list[Type]:
    t = _like(ctx)
    if not t.dtype.is_float:
        raise ctx.error(f"random numbers are floats, not {t.dtype}")
    return [t]


@op("RandomNormal", "RandomUniform", traits=(Trait.STOCHASTIC,))
def _random(ctx: InferContext) -> list[Type]:
    shape = ctx.attr("shape")
    if shape is None:
        raise ctx.error("attribute shape is missing")
    return [TensorType(element_type(ctx.attr("dtype")), tuple(int(d) for d in shape))]


@op("Multinomial", traits=(Trait.STOCHASTIC,))
def _multinomial(ctx: InferContext) -> list[Type]:
    x = floating(ctx)
    if x.rank != 2:
        raise ctx.error(f"the input must have rank 2, not {x.rank}")
    to = element_type(ctx.attr("dtype"))
    if to not in (dtype("int32"), dtype("int64")):
        raise ctx.error(f"dtype must be int32 or int64, not {to}")
    return [TensorType(to, (x.dims[0], int(ctx.attr("sample_size"))))]
