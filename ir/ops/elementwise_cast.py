"""Ops that change or keep the element type: conversions, reinterpretation, identity."""

from __future__ import annotations

import numpy as np

from ..axes.pointwise import first_elementwise
from ..onnx_types import element_type
from ..registry import InferContext, op
from ..traits import Trait
from ..types import DType, TensorType, Type
from . import elementwise_values as values
from .elementwise import CHEAP
from .elementwise_values import Arrays, elementwise_value


def _cast_value(ctx: InferContext, arrays: Arrays) -> Arrays | None:
    source, target = ctx.tensor(0), ctx.results[0]
    assert isinstance(target, TensorType)
    if source.dtype.kind not in "fiub" or target.dtype.kind not in "fiub" or arrays[0] is None:
        return None
    if _needs_care(source.dtype, target.dtype):
        return None
    if target.dtype.kind == "b":
        return elementwise_value(np.asarray, values.dim_to_bool)(ctx, arrays[:1])
    symbolic = None if target.dtype.bits < 32 else (lambda a: a)
    return elementwise_value(np.asarray, symbolic)(ctx, arrays[:1])


def _needs_care(source: DType, target: DType) -> bool:
    """Conversions where NumPy and ONNX may differ are left to run time."""
    small = {"float8e8m0", "float4e2m1"}
    return target.is_float and target.bits <= 8 or bool({source.name, target.name} & small)


_CONVERTS = (Trait.ELEMENTWISE, Trait.FINITE, Trait.CONVERTS, Trait.ROUNDS_ONCE)


@op("Cast", traits=(*_CONVERTS, Trait.CHEAP), propagate=_cast_value)
def _cast(ctx: InferContext) -> list[Type]:
    return [ctx.tensor(0).with_dtype(_target(ctx))]


def _target(ctx: InferContext) -> DType:
    to = ctx.attr("to")
    if to is None:
        raise ctx.error("attribute to is missing")
    return element_type(to)


@op(
    "CastLike", traits=_CONVERTS, propagate=_cast_value,
    axes=first_elementwise,
)  # fmt: skip
def _cast_like(ctx: InferContext) -> list[Type]:
    return [ctx.tensor(0).with_dtype(ctx.tensor(1).dtype)]


@op("BitCast", traits=(Trait.ELEMENTWISE, Trait.ROUNDS_ONCE))
def _bit_cast(ctx: InferContext) -> list[Type]:
    x, to = ctx.tensor(0), _target(ctx)
    if _width(x.dtype) != _width(to) or "s" in (x.dtype.kind, to.kind):
        raise ctx.error(f"the bits of {x.dtype} do not make a {to}")
    return [x.with_dtype(to)]


def _width(t: DType) -> int:
    """Bits of one element in ONNX's storage, where a bool takes a byte."""
    return 8 if t.kind == "b" else t.bits


@op(
    "Identity", traits=(*CHEAP, Trait.ALIAS, Trait.PICKS, Trait.IDEMPOTENT, Trait.ROUNDS_ONCE),
    propagate=lambda ctx, arrays: arrays[:1],
)  # fmt: skip
def _identity(ctx: InferContext) -> list[Type]:
    t = ctx.inputs[0] if ctx.inputs else None
    if t is None:
        raise ctx.error("the input is missing")
    return [t]
