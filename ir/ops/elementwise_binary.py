"""Element-wise ops on several tensors, with NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..registry import InferContext, Propagate, op
from ..traits import Trait
from ..types import TensorType, Type
from . import elementwise_values as values
from .elementwise import CHEAP, ELEMENTWISE, PARTIAL, boolean, integral, numeric
from .elementwise_values import elementwise_value

Check = Callable[[InferContext, int], TensorType]


def broadcasting(ctx: InferContext, *inputs: int) -> TensorType:
    """The common type of the inputs (all by default): one element type, shapes broadcast."""
    types = [ctx.tensor(i) for i in inputs or range(len(ctx.inputs))]
    for i, t in enumerate(types[1:], 1):
        if t.dtype != types[0].dtype:
            raise ctx.error(f"input 0 holds {types[0].dtype}, input {i} {t.dtype}")
    return types[0].with_shape(ctx.broadcast_known(*(t.shape for t in types)))


def _register(
    name: str, check: Check, value: Propagate | None, *traits: Trait, result: str | None = None,
    homogeneous: tuple[tuple[int, ...], ...] = (),
) -> None:  # fmt: skip
    @op(name, traits=(*traits, Trait.BROADCASTS), propagate=value, homogeneous=homogeneous)
    def _infer(ctx: InferContext) -> list[Type]:
        for i in range(len(ctx.inputs)):
            check(ctx, i)
        t = broadcasting(ctx)
        return [t if result is None else t.with_dtype(result)]


def _anything(ctx: InferContext, i: int) -> TensorType:
    return ctx.tensor(i)


_ONCE = Trait.ROUNDS_ONCE
_AC = (*CHEAP, Trait.COMMUTATIVE, Trait.ASSOCIATIVE)
_ACI = (*_AC, Trait.IDEMPOTENT)
_POSITIVE = Trait.KEEPS_NONNEGATIVE

_register("Add", numeric, elementwise_value(np.add, lambda a, b: a + b), *_AC, _ONCE, _POSITIVE,
          Trait.ADDITIVE, Trait.PARAMETRIC, homogeneous=((0, 1),))  # fmt: skip
_register("Sub", numeric, elementwise_value(np.subtract, lambda a, b: a - b), *CHEAP, _ONCE,
          Trait.ADDITIVE, homogeneous=((0, 1),))  # fmt: skip
_register("Mul", numeric, elementwise_value(np.multiply, lambda a, b: a * b), *_AC, _ONCE,
          _POSITIVE, Trait.PARAMETRIC, homogeneous=((0,), (1,)))  # fmt: skip
_register("Div", numeric, elementwise_value(values.divide, values.dim_divide), *PARTIAL, _ONCE,
          _POSITIVE, homogeneous=((0,),))  # fmt: skip
_register("BitwiseAnd", integral, elementwise_value(np.bitwise_and), *_ACI)
_register("BitwiseOr", integral, elementwise_value(np.bitwise_or), *_ACI)
_register("BitwiseXor", integral, elementwise_value(np.bitwise_xor), *_AC)
_register("BitShift", integral, None, *CHEAP)
_register("And", boolean, elementwise_value(np.logical_and), *_ACI)
_register("Or", boolean, elementwise_value(np.logical_or), *_ACI)
_register("Xor", boolean, elementwise_value(np.logical_xor), *_AC)


def _more(a: Any, b: Any) -> bool:
    return values.dim_less(b, a)


def _not_less(a: Any, b: Any) -> bool:
    return not values.dim_less(a, b)


def _not_more(a: Any, b: Any) -> bool:
    return not values.dim_less(b, a)


def _compare(name: str, check: Check, value: Propagate, *traits: Trait) -> None:
    _register(name, check, value, *CHEAP, Trait.IGNORES_ZERO_SIGN, _ONCE, *traits, result="bool")


_compare("Equal", _anything, elementwise_value(np.equal, values.dim_equal), Trait.COMMUTATIVE)
_compare("Less", numeric, elementwise_value(np.less, values.dim_less))
_compare("LessOrEqual", numeric, elementwise_value(np.less_equal, _not_more))
_compare("Greater", numeric, elementwise_value(np.greater, _more))
_compare("GreaterOrEqual", numeric, elementwise_value(np.greater_equal, _not_less))

_register("Max", numeric, elementwise_value(values.fold(np.maximum), values.dim_maximum), *_ACI,
          _POSITIVE)  # fmt: skip
_register("Min", numeric, elementwise_value(values.fold(np.minimum), values.dim_minimum), *_ACI)
_register("Sum", numeric, elementwise_value(values.fold(np.add)), *ELEMENTWISE, Trait.COMMUTATIVE,
          Trait.ASSOCIATIVE)  # fmt: skip
_register("Mean", numeric, elementwise_value(values.mean), *ELEMENTWISE, Trait.COMMUTATIVE)


def _mod_value(ctx: InferContext, arrays: values.Arrays) -> values.Arrays | None:
    plain = np.fmod if ctx.attr("fmod") else values.modulo
    symbolic = None if ctx.attr("fmod") else values.dim_modulo
    return elementwise_value(plain, symbolic)(ctx, arrays)


_register("Mod", numeric, _mod_value, *PARTIAL)


@op("Pow", traits=(*PARTIAL, Trait.BROADCASTS), propagate=elementwise_value(np.power))
def _pow(ctx: InferContext) -> list[Type]:
    x, y = numeric(ctx), numeric(ctx, 1)
    return [x.with_shape(ctx.broadcast_known(x.shape, y.shape))]


@op(
    "Where", traits=(*CHEAP, _ONCE, Trait.BROADCASTS),
    propagate=elementwise_value(np.where, values.dim_where),
)  # fmt: skip
def _where(ctx: InferContext) -> list[Type]:
    condition = boolean(ctx)
    t = broadcasting(ctx, 1, 2)
    return [t.with_shape(ctx.broadcast_known(condition.shape, t.shape))]
