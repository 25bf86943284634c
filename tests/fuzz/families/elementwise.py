"""Element-wise operations that broadcast, in every type that has them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np

from ..net import Net, Unfit, Value, element, is_float
from . import Step, grow

FLOATS = (np.float32, np.float16, np.float64, ml_dtypes.bfloat16)
INTEGERS = (
    np.int64, np.int32, np.int8, np.int16, np.uint8, np.uint16, np.uint32, np.uint64,
)  # fmt: skip
_SMOOTH = ("Tanh", "Sigmoid", "Erf", "Softplus", "Softsign", "Elu", "Selu", "Celu", "Gelu",
           "HardSigmoid", "HardSwish", "Mish", "LeakyRelu", "Sin", "Cos", "Atan")  # fmt: skip
_EXACT = ("Neg", "Abs", "Relu", "Sign", "Floor", "Ceil", "Round", "Identity")
_COMPARE = ("Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual")

LIMIT = 1e4
"""Magnitudes above are brought down, so that most graphs neither overflow nor lose all digits."""


def floats(v: Value) -> bool:
    return v.is_float


def integers(v: Value) -> bool:
    return v.is_integer


def truths(v: Value) -> bool:
    return v.dtype == np.bool_


def tame(net: Net, v: Value) -> Value:
    """``v``, or something smaller where it has grown large."""
    if v.is_float and v.largest > LIMIT:
        return net.op("Tanh", v)
    return v


def broadcast_shape(net: Net, shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape that broadcasts to ``shape``: some dims are 1, leading ones are missing."""
    cut = net.between(0, len(shape)) if net.chance(0.5) else 0
    return tuple(1 if net.chance(0.3) else d for d in shape[cut:])


def operand(net: Net, like: Value) -> Value:
    """Something to combine with ``like``: a value that broadcasts with it, or a constant."""
    found = [v for v in net.values if v.dtype == like.dtype and _broadcast(v.shape, like.shape)]
    if found and net.chance(0.55):
        return net.choose(found[-6:])
    shape = broadcast_shape(net, like.shape)
    if net.chance(0.3):
        return number(net, like.dtype)
    high = 100 if like.is_integer else 3
    return net.random(like.dtype, shape, -high, high)


def number(net: Net, dtype: Any) -> Value:
    """A scalar that rules look for."""
    integer = np.dtype(dtype).kind in "iu"
    known = (0, 1, 2, 3, 5, 7, 10) if integer else (
        0.0, 1.0, -1.0, 2.0, 0.5, 0.1, 3.0, 1.0009, 41.0, 47.0, -0.0, 255.0, 1e-3,
    )  # fmt: skip
    return net.constant(net.choose(known), dtype)


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(x == y or 1 in (x, y) for x, y in zip(a[::-1], b[::-1], strict=False))


def unary(net: Net) -> None:
    v = net.pick(floats)
    if net.chance(0.5):
        net.op(net.choose(_EXACT), v)
    else:
        net.op(net.choose(_SMOOTH), tame(net, v))


def domain(net: Net) -> None:
    """Functions that are not defined everywhere, on what they are defined for."""
    v = net.op("Abs", net.pick(floats))
    kind = net.choose(("Sqrt", "Log", "Reciprocal", "Exp", "Pow"))
    if kind == "Exp":
        net.op("Exp", net.op("Clip", v, None, net.constant(5.0, v.dtype)))
    elif kind == "Pow":
        exponent = net.choose((2.0, 3.0, 0.5, -1.0, 1.0, 0.0, 1.5))
        base = net.op("Add", v, net.constant(0.5, v.dtype))
        net.op("Pow", tame(net, base), net.constant(exponent, v.dtype))
    else:
        net.op(kind, net.op("Add", v, net.constant(0.25, v.dtype)))


def binary(net: Net) -> None:
    v = tame(net, net.pick(floats))
    kind = net.choose(("Add", "Sub", "Mul", "Div", "Max", "Min", "Add", "Mul", "Sub"))
    w = operand(net, v)
    net.op(kind, *((v, w) if net.chance(0.6) else (w, v)))


def several(net: Net) -> None:
    v = net.pick(floats)
    net.op(net.choose(("Sum", "Mean", "Max", "Min")), v, operand(net, v), operand(net, v))


def chain_of_constants(net: Net) -> None:
    """What algebra would like to regroup."""
    v = tame(net, net.pick(floats))
    for _ in range(net.between(2, 4)):
        v = net.op(net.choose(("Add", "Mul", "Div", "Sub")), v, number(net, v.dtype))


def clip(net: Net) -> None:
    v = net.pick(floats)
    low = net.constant(float(net.rng.normal()), v.dtype) if net.chance(0.8) else None
    high = net.constant(float(net.rng.normal() + 1), v.dtype) if net.chance(0.8) else None
    net.op("Clip", v, low, high)


def compare(net: Net) -> None:
    v = net.pick(lambda v: v.is_float or v.is_integer)
    net.op(net.choose(_COMPARE), v, operand(net, v))


def logic(net: Net) -> None:
    v = net.pick(truths)
    if net.chance(0.3):
        net.op("Not", v)
    else:
        net.op(net.choose(("And", "Or", "Xor")), v, operand(net, v))


def where(net: Net) -> None:
    v = net.pick(lambda v: v.dtype != np.bool_)
    fits = [c for c in net.values if truths(c) and _broadcast(c.shape, v.shape)]
    if not fits:
        raise Unfit("no condition")
    w = operand(net, v)
    net.op("Where", net.choose(fits), *((v, w) if net.chance(0.5) else (w, v)))


def nan(net: Net) -> None:
    net.op(net.choose(("IsNaN", "IsInf")), net.pick(lambda v: v.dtype in (np.float32, np.float64)))


def cast(net: Net) -> None:
    """To another type that holds the values: casts out of range are undefined."""
    v = net.pick()
    targets = [t for t in (*FLOATS, *INTEGERS, np.bool_) if _holds(t, v)]
    net.op("Cast", v, to=element(net.choose(targets)))


def _holds(dtype: Any, v: Value) -> bool:
    kind = np.dtype(dtype)
    if kind == np.bool_ or is_float(kind) or v.dtype == np.bool_:
        return True
    if v.is_float:
        # Other feeds hold other numbers, so there must be room.
        finite = bool(np.isfinite(v.array.astype(np.float64)).all())
        return finite and kind.kind == "i" and kind.itemsize >= 4 and v.largest < 1e4
    return True


def bounded_cast(net: Net) -> None:
    """Floats in the range of a small integer type become one."""
    v = net.pick(floats)
    kind = np.iinfo(net.choose((np.int8, np.uint8, np.int16, np.int32)))
    low, high = max(kind.min, -100), 100
    v = net.op("Clip", v, net.constant(low, v.dtype), net.constant(high, v.dtype))
    if np.isfinite(v.array.astype(np.float64)).all():
        net.op("Cast", v, to=element(kind.dtype))


def integer_binary(net: Net) -> None:
    v = net.pick(integers)
    w = operand(net, v)
    operands = (v, w) if net.chance(0.5) else (w, v)
    net.op(net.choose(("Add", "Sub", "Mul", "Max", "Min")), *operands)


def integer_division(net: Net) -> None:
    """By what is not zero, for division by zero ends the process in other runtimes."""
    v = net.pick(integers)
    shape = broadcast_shape(net, v.shape)
    divisor = net.random(v.dtype, shape, 1, 9) if net.chance(0.5) else net.constant(
        net.choose((1, 2, 3, 7, 8, 10, 16, 100)), v.dtype
    )  # fmt: skip
    if net.chance(0.5):
        net.op("Mod", v, divisor, fmod=net.between(0, 1))
    else:
        net.op("Div", v, divisor)


def integer_unary(net: Net) -> None:
    v = net.pick(lambda v: v.dtype.kind == "i")
    net.op(net.choose(("Neg", "Abs", "Sign", "Identity", "Relu")), v)


def bits(net: Net) -> None:
    v = net.pick(integers)
    if v.dtype.kind == "u" and net.chance(0.4):
        # Shifts by a width or more are undefined.
        shift = net.random(v.dtype, broadcast_shape(net, v.shape), 0, v.dtype.itemsize * 8 - 1)
        net.op("BitShift", v, shift, direction=net.choose(("LEFT", "RIGHT")))
    elif net.chance(0.3):
        net.op("BitwiseNot", v)
    else:
        net.op(net.choose(("BitwiseAnd", "BitwiseOr", "BitwiseXor")), v, operand(net, v))


def modulo(net: Net) -> None:
    v = net.pick(floats)
    net.op("Mod", v, net.random(v.dtype, broadcast_shape(net, v.shape), 0.5, 3.0), fmod=1)


FLOAT_STEPS: list[Step] = [
    unary, unary, domain, binary, binary, binary, several, chain_of_constants, clip, compare,
    logic, where, nan, modulo,
]  # fmt: skip
INTEGER_STEPS: list[Step] = [
    integer_binary,
    integer_binary,
    integer_division,
    integer_unary,
    bits,
    compare,
    logic,
    where,
]
CAST_STEPS: list[Step] = [cast, bounded_cast]


def dims(net: Net, rank: int) -> list[int | str]:
    """Dims of an input: some are open, and few are large enough for vectors."""
    out: list[int | str] = []
    for axis in range(rank):
        if net.chance(0.45):
            out.append("NMKL"[axis])
        else:
            out.append(net.choose((1, 2, 3, 4, 5, 8, 16, 17, 33)))
    return out


def inputs(net: Net, dtype: Any, high: float = 2.0, most: int = 3) -> None:
    """One to three inputs that broadcast with each other."""
    full = dims(net, net.between(0, 4))
    low = -high
    net.input(dtype, full, low, high)
    for _ in range(net.between(0, most - 1)):
        cut = net.between(0, len(full)) if net.chance(0.4) else 0
        net.input(dtype, [1 if net.chance(0.25) else d for d in full[cut:]], low, high)


def elementwise(net: Net) -> None:
    inputs(net, np.float32)
    grow(net, [*FLOAT_STEPS, *CAST_STEPS, *INTEGER_STEPS[:2]], net.between(2, 12))


def small_floats(net: Net) -> None:
    inputs(net, net.choose((np.float16, ml_dtypes.bfloat16, np.float64)))
    grow(net, [*FLOAT_STEPS, cast], net.between(2, 9))


def integer(net: Net) -> None:
    inputs(net, net.choose(INTEGERS), 120)
    grow(net, [*INTEGER_STEPS, cast], net.between(2, 12))


FAMILIES = {"elementwise": elementwise, "floats": small_floats, "integer": integer}

__all__ = ["FAMILIES", "dims", "inputs", "number", "operand", "tame"]
