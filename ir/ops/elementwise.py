"""Ops on one tensor, element by element: arithmetic, rounding, predicates and activations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..registry import InferContext, op
from ..traits import Trait
from ..types import TensorType, Type
from .elementwise_values import dim_abs, dim_sign, elementwise_value

PARTIAL = (Trait.ELEMENTWISE, Trait.FLOAT_POLYMORPHIC)
"""Traits of elementwise ops whose result may be infinite or NaN for finite numbers."""

ELEMENTWISE = (*PARTIAL, Trait.FINITE)
CHEAP = (*ELEMENTWISE, Trait.CHEAP)


def numeric(ctx: InferContext, i: int = 0) -> TensorType:
    """Input ``i``, which must hold numbers."""
    t = ctx.tensor(i)
    if t.dtype.kind not in "fiu":
        raise ctx.error(f"input {i} must hold numbers, not {t.dtype}")
    return t


def floating(ctx: InferContext, i: int = 0) -> TensorType:
    """Input ``i``, which must hold floats."""
    t = ctx.tensor(i)
    if not t.dtype.is_float:
        raise ctx.error(f"input {i} must hold floats, not {t.dtype}")
    return t


def integral(ctx: InferContext, i: int = 0) -> TensorType:
    """Input ``i``, which must hold integers."""
    t = ctx.tensor(i)
    if not t.dtype.is_integer:
        raise ctx.error(f"input {i} must hold integers, not {t.dtype}")
    return t


def boolean(ctx: InferContext, i: int = 0) -> TensorType:
    """Input ``i``, which must hold truth values."""
    t = ctx.tensor(i)
    if t.dtype.kind != "b":
        raise ctx.error(f"input {i} must be bool, not {t.dtype}")
    return t


# ---- floats --------------------------------------------------------------------------------------


@op("Exp", traits=(*PARTIAL, Trait.NONNEGATIVE, Trait.IGNORES_ZERO_SIGN))
@op("Sigmoid", traits=(*ELEMENTWISE, Trait.NONNEGATIVE, Trait.IGNORES_ZERO_SIGN))
@op("Cos", traits=(*ELEMENTWISE, Trait.IGNORES_ZERO_SIGN))
@op("Cosh", traits=(*PARTIAL, Trait.IGNORES_ZERO_SIGN))
@op("Acos", "Acosh", "Asin", "Atanh", "Log", "Sinh", "Tan", traits=PARTIAL)
@op(
    "Asinh", "Atan", "Erf", "Sin", "Tanh", "Celu", "Elu", "Gelu", "HardSwish", "Mish", "Selu",
    "Softsign", "Swish", "ThresholdedRelu",
    traits=ELEMENTWISE,
)  # fmt: skip
@op("HardSigmoid", "Softplus", traits=(*ELEMENTWISE, Trait.NOT_BELOW_ZERO))
@op("LeakyRelu", traits=CHEAP, homogeneous=((0,),))
def _same_float(ctx: InferContext) -> list[Type]:
    return [floating(ctx)]


def _register_rounding(name: str, plain: Callable[[Any], Any], traits: tuple[Trait, ...]) -> None:
    """Float functions whose values are propagated, since models compute sizes in floats."""
    value = elementwise_value(plain)

    @op(name, traits=(*traits, Trait.ROUNDS_ONCE), propagate=value)
    def _infer(ctx: InferContext) -> list[Type]:
        return [floating(ctx)]


_register_rounding("Ceil", np.ceil, (*CHEAP, Trait.IDEMPOTENT))
_register_rounding("Floor", np.floor, (*CHEAP, Trait.IDEMPOTENT))
_register_rounding("Round", np.rint, (*ELEMENTWISE, Trait.IDEMPOTENT))
_register_rounding("Sqrt", np.sqrt, (*PARTIAL, Trait.KEEPS_NONNEGATIVE))
_register_rounding("Reciprocal", np.reciprocal, PARTIAL)


@op("IsNaN", traits=(*CHEAP, Trait.IGNORES_ZERO_SIGN, Trait.ROUNDS_ONCE))
def _is_nan(ctx: InferContext) -> list[Type]:
    return [floating(ctx).with_dtype("bool")]


@op("IsInf", traits=(*CHEAP, Trait.IGNORES_ZERO_SIGN, Trait.ROUNDS_ONCE))
def _is_inf(ctx: InferContext) -> list[Type]:
    return [floating(ctx).with_dtype("bool")]


# ---- any numbers ---------------------------------------------------------------------------------


@op("Relu", traits=(*CHEAP, Trait.IDEMPOTENT, Trait.NOT_BELOW_ZERO), homogeneous=((0,),))
def _relu(ctx: InferContext) -> list[Type]:
    return [numeric(ctx)]


@op("Shrink", traits=ELEMENTWISE)
def _shrink(ctx: InferContext) -> list[Type]:
    return [numeric(ctx)]


@op(
    "Abs",
    traits=(
        *CHEAP, Trait.IDEMPOTENT, Trait.NONNEGATIVE, Trait.IGNORES_ZERO_SIGN,
        Trait.ROUNDS_ONCE,
    ),
    propagate=elementwise_value(np.abs, dim_abs), homogeneous=((0,),),
)  # fmt: skip
def _abs(ctx: InferContext) -> list[Type]:
    return [numeric(ctx)]


@op(
    "Neg", traits=(*CHEAP, Trait.INVOLUTION, Trait.ROUNDS_ONCE),
    propagate=elementwise_value(np.negative, lambda a: -a), homogeneous=((0,),),
)  # fmt: skip
def _neg(ctx: InferContext) -> list[Type]:
    return [numeric(ctx)]


@op("Sign", traits=(*CHEAP, Trait.IDEMPOTENT), propagate=elementwise_value(np.sign, dim_sign))
def _sign(ctx: InferContext) -> list[Type]:
    return [numeric(ctx)]


@op("BitwiseNot", traits=(*CHEAP, Trait.INVOLUTION), propagate=elementwise_value(np.invert))
def _bitwise_not(ctx: InferContext) -> list[Type]:
    return [integral(ctx)]


@op("Not", traits=(*CHEAP, Trait.INVOLUTION), propagate=elementwise_value(np.logical_not))
def _not(ctx: InferContext) -> list[Type]:
    return [boolean(ctx)]


# ---- activations with further inputs -------------------------------------------------------------


@op("PRelu", traits=CHEAP, homogeneous=((0,),))
def _prelu(ctx: InferContext) -> list[Type]:
    x, slope = numeric(ctx), numeric(ctx, 1)
    if x.dtype != slope.dtype:
        raise ctx.error(f"x holds {x.dtype}, slope {slope.dtype}")
    if x.shape is not None and slope.shape is not None:
        ctx.broadcast_to(slope.shape, x.shape, "a slope")
    return [x]


@op("SwiGLU", traits=ELEMENTWISE)
def _swiglu(ctx: InferContext) -> list[Type]:
    a, b = floating(ctx), floating(ctx, 1)
    if a.dtype != b.dtype:
        raise ctx.error(f"A holds {a.dtype}, B {b.dtype}")
    if a.shape is None or b.shape is None:
        return [a if b.shape is None else b]
    ctx.require_same_shape(a.shape, b.shape, "operands of one shape")
    return [a]


@op("Clip", traits=(*CHEAP, Trait.IDEMPOTENT))
def _clip(ctx: InferContext) -> list[Type]:
    x = numeric(ctx)
    for i, name in ((1, "min"), (2, "max")):
        if ctx.has(i) and ctx.tensor(i).dtype != x.dtype:
            raise ctx.error(f"{name} holds {ctx.tensor(i).dtype}, the input {x.dtype}")
    return [x]
