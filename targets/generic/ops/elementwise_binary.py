"""Lowerings of ops on several tensors, with NumPy's broadcasting."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from ...tir import arithmetic, division, floats, math
from ...tir.builder import Builder, Expr, TensorExpr
from ...tir.numeric import cast, dtype_of
from ..broadcast import aligned
from ..registry import LowerContext, lowering
from .elementwise import CHEAP, COSTLY, MODERATE

Function = Callable[[Expr, Expr], Expr]


def variadic(ctx: LowerContext, function: Function, cost: int = CHEAP) -> TensorExpr:
    """The inputs, combined from left to right by ``function``, whose operands are bound."""
    b = ctx.b
    loads = [aligned(ctx, i) for i in range(len(ctx.inputs))]
    total = cost * max(1, len(loads) - 1) + sum(x.cost for x in ctx.inputs if x is not None)

    def load(at: tuple[Expr, ...]) -> Expr:
        result = arithmetic.bind(b, loads[0](at))
        for read in loads[1:]:
            result = arithmetic.bind(b, function(result, arithmetic.bind(b, read(at))))
        return result

    return ctx.lazy(load, cost=total)


_FUNCTIONS: dict[str, tuple[Function, int]] = {
    "Add": (arithmetic.add, CHEAP),
    "And": (tirx.And, CHEAP),
    "BitwiseAnd": (tirx.bitwise_and, CHEAP),
    "BitwiseOr": (tirx.bitwise_or, CHEAP),
    "BitwiseXor": (tirx.bitwise_xor, CHEAP),
    "Equal": (arithmetic.equal, CHEAP),
    "Greater": (lambda a, b: a > b, CHEAP),
    "GreaterOrEqual": (lambda a, b: a >= b, CHEAP),
    "Less": (lambda a, b: a < b, CHEAP),
    "LessOrEqual": (lambda a, b: a <= b, CHEAP),
    "Max": (arithmetic.maximum, CHEAP),
    "Min": (arithmetic.minimum, CHEAP),
    "Mul": (arithmetic.multiply, CHEAP),
    "Or": (tirx.Or, CHEAP),
    "Sub": (arithmetic.subtract, CHEAP),
    "Sum": (arithmetic.add, CHEAP),
    "Xor": (arithmetic.differ, CHEAP),
}


def _register(name: str, function: Function, cost: int) -> None:
    @lowering(name)
    def _lower(ctx: LowerContext) -> TensorExpr:
        return variadic(ctx, function, cost)


for _name, (_function, _cost) in _FUNCTIONS.items():
    _register(_name, _function, _cost)


@lowering("Div")
def _div(ctx: LowerContext) -> TensorExpr:
    return variadic(ctx, lambda x, y: division.divide(ctx.b, x, y), MODERATE)


@lowering("Mean")
def _mean(ctx: LowerContext) -> TensorExpr:
    total = variadic(ctx, arithmetic.add)
    count = len(ctx.inputs)

    def load(at: tuple[Expr, ...]) -> Expr:
        value = total.load(at)
        return division.divide(ctx.b, value, tirx.const(count, dtype_of(value)))

    return ctx.lazy(load, cost=total.cost + MODERATE)


@lowering("Mod")
def _mod(ctx: LowerContext) -> TensorExpr:
    function = division.remainder if ctx.attr("fmod") else division.modulo
    return variadic(ctx, lambda x, y: function(ctx.b, x, y), COSTLY)


@lowering("BitShift")
def _bit_shift(ctx: LowerContext) -> TensorExpr:
    direction = ctx.attr("direction")
    if direction not in ("LEFT", "RIGHT"):
        raise ctx.error(f"direction must be LEFT or RIGHT, not {direction!r}")
    return variadic(ctx, lambda a, b: arithmetic.shift(a, b, direction == "LEFT"))


@lowering("Where")
def _where(ctx: LowerContext) -> TensorExpr:
    condition, a, b = (aligned(ctx, i) for i in range(3))
    cost = CHEAP + sum(x.cost for x in ctx.inputs if x is not None)
    return ctx.lazy(lambda at: tirx.Select(condition(at), a(at), b(at)), cost=cost)


# ---- Pow -----------------------------------------------------------------------------------------


@lowering("Pow")
def _pow(ctx: LowerContext) -> TensorExpr:
    b, x, y = ctx.b, aligned(ctx, 0), aligned(ctx, 1)
    cost = 2 * COSTLY + ctx.input(0).cost + ctx.input(1).cost
    return ctx.lazy(
        lambda at: power(b, arithmetic.bind(b, x(at)), arithmetic.bind(b, y(at))), cost=cost
    )


def power(b: Builder, x: Expr, y: Expr) -> Expr:
    """``x`` to the power ``y`` in the dtype of ``x``; ``y`` may have another.

    The result is the same, bit for bit, whether ``y`` is a constant or an input.
    """
    exponent = arithmetic.literal_value(y)
    short = None if exponent is None or not _same_kind(x, y) else _short_power(b, x, exponent)
    if short is not None:
        return short
    if arithmetic.is_float(x):
        result = math.pow(b, x, cast(y, "float64") if floats.is_double(x) else y)
        return result if exponent is not None else _with_short_powers(b, x, y, result)
    if arithmetic.is_float(y):
        wide = math.pow(b, cast(x, "float64"), cast(y, "float64"))
        return arithmetic.convert(b.let(wide), dtype_of(x))
    return cast(arithmetic.integer_power(b, cast(x, "int64"), cast(y, "int64")),
                dtype_of(x))  # fmt: skip


def _same_kind(x: Expr, y: Expr) -> bool:
    """Are both integers, or both floats? Otherwise the power is computed in floats, without
    wrapping.
    """
    return arithmetic.is_float(x) or not arithmetic.is_float(y)


def _with_short_powers(b: Builder, x: Expr, y: Expr, result: Expr) -> Expr:
    """The power of a float, but by a shorter formula for exponents that have one, such as 2."""
    for exponent in _SHORT:
        if not _may_hold(dtype_of(y), exponent):
            continue
        short = _short_power(b, x, exponent)
        here = y.equal(tirx.const(exponent, dtype_of(y)))
        result = b.let(tirx.Select(here, short, result))
    return result


def _may_hold(dtype: str, number: float) -> bool:
    """Is a small number one of the values of this element type?"""
    if dtype.startswith("uint"):
        return number >= 0 and number == int(number)
    return not dtype.startswith("int") or number == int(number)


_SHORT = (1, 2, 3, 4, -1, -2, 0.5)


def _short_power(b: Builder, x: Expr, exponent: float) -> Expr | None:
    """The power by a few multiplications, a root or a division; None for other exponents."""
    if exponent == 1:
        return x
    square = arithmetic.bind(b, arithmetic.multiply(x, x)) if exponent in (2, 3, 4, -2) else x
    if exponent in (2, 3, 4):
        other = {2: None, 3: x, 4: square}[int(exponent)]
        return square if other is None else arithmetic.multiply(square, other)
    if not arithmetic.is_float(x):
        return None
    if exponent in (-1, -2):
        return floats.constant(1.0, x) / square
    if exponent != 0.5:
        return None
    infinite = x.equal(floats.negate(floats.infinity(x)))  # where a root would be NaN
    return tirx.Select(infinite, floats.infinity(x), tirx.sqrt(x))
