"""Lowerings of ops on one tensor: arithmetic, rounding, predicates and activations."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from ...tir import activations, arithmetic, floats, math
from ...tir.builder import Builder, Expr, TensorExpr
from ...tir.numeric import dtype_of
from ..broadcast import aligned, scalar
from ..registry import LowerContext, lowering

CHEAP, MODERATE, COSTLY = 1, 8, 16
"""Scalar operations for one element of an op, roughly."""

Function = Callable[[Builder, Expr], Expr]


def unary(ctx: LowerContext, function: Function, cost: int = CHEAP) -> TensorExpr:
    """The output of an op that applies ``function`` to every (bound) element of input 0."""
    x, b = ctx.input(0), ctx.b
    return ctx.lazy(lambda at: function(b, arithmetic.bind(b, x.load(at))), cost=cost + x.cost)


def _register(name: str, function: Function, cost: int) -> None:
    @lowering(name)
    def _lower(ctx: LowerContext) -> TensorExpr:
        return unary(ctx, function, cost)


# ---- functions without parameters ----------------------------------------------------------------

_COSTLY: dict[str, Function] = {
    "Acos": math.acos, "Acosh": math.acosh, "Asin": math.asin, "Asinh": math.asinh,
    "Atan": math.atan, "Atanh": math.atanh, "Cos": math.cos, "Cosh": math.cosh, "Erf": math.erf,
    "Exp": math.exp, "Log": math.log, "Sigmoid": math.sigmoid, "Sin": math.sin, "Sinh": math.sinh,
    "Softplus": math.softplus, "Tan": math.tan, "Tanh": math.tanh, "Mish": activations.mish,
}  # fmt: skip
_MODERATE: dict[str, Function] = {
    "HardSwish": activations.hard_swish,
    "Reciprocal": lambda b, x: floats.constant(1.0, x) / x,
    "Softsign": activations.softsign,
    "Sqrt": lambda b, x: tirx.sqrt(x),
}
_CHEAP: dict[str, Function] = {
    "Abs": lambda b, x: arithmetic.absolute(x),
    "BitwiseNot": lambda b, x: tirx.bitwise_not(x),
    "Ceil": lambda b, x: tirx.ceil(x),
    "Floor": lambda b, x: tirx.floor(x),
    "IsNaN": lambda b, x: floats.is_nan(x),
    "Neg": lambda b, x: arithmetic.negate(x),
    "Not": lambda b, x: tirx.Not(x),
    "Relu": lambda b, x: tirx.Select(x < _zero(x), _zero(x), x),
    "Round": lambda b, x: tirx.nearbyint(x),
    "Sign": lambda b, x: arithmetic.sign(x),
}


def _zero(x: Expr) -> Expr:
    return tirx.const(0, dtype_of(x))


for _functions, _cost in ((_COSTLY, COSTLY), (_MODERATE, MODERATE), (_CHEAP, CHEAP)):
    for _name, _function in _functions.items():
        _register(_name, _function, _cost)


# ---- functions with parameters -------------------------------------------------------------------


@lowering("Celu")
def _celu(ctx: LowerContext) -> TensorExpr:
    return unary(ctx, lambda b, x: activations.celu(b, x, ctx.attr("alpha")), COSTLY)


@lowering("Elu")
def _elu(ctx: LowerContext) -> TensorExpr:
    return unary(ctx, lambda b, x: activations.elu(b, x, ctx.attr("alpha")), COSTLY)


@lowering("Selu")
def _selu(ctx: LowerContext) -> TensorExpr:
    alpha, gamma = ctx.attr("alpha"), ctx.attr("gamma")
    return unary(ctx, lambda b, x: activations.selu(b, x, alpha, gamma), COSTLY)


@lowering("Gelu")
def _gelu(ctx: LowerContext) -> TensorExpr:
    form = ctx.attr("approximate")
    if form not in ("none", "tanh"):
        raise ctx.error(f"approximate must be none or tanh, not {form!r}")
    return unary(ctx, activations.gelu if form == "none" else activations.gelu_tanh, COSTLY)


@lowering("HardSigmoid")
def _hard_sigmoid(ctx: LowerContext) -> TensorExpr:
    alpha, beta = ctx.attr("alpha"), ctx.attr("beta")
    return unary(ctx, lambda b, x: activations.hard_sigmoid(b, x, alpha, beta))


@lowering("LeakyRelu")
def _leaky_relu(ctx: LowerContext) -> TensorExpr:
    return unary(ctx, lambda b, x: activations.leaky_relu(b, x, ctx.attr("alpha")))


@lowering("Swish")
def _swish(ctx: LowerContext) -> TensorExpr:
    return unary(ctx, lambda b, x: activations.swish(b, x, ctx.attr("alpha")), COSTLY)


@lowering("ThresholdedRelu")
def _thresholded_relu(ctx: LowerContext) -> TensorExpr:
    return unary(ctx, lambda b, x: activations.thresholded_relu(b, x, ctx.attr("alpha")))


@lowering("Shrink")
def _shrink(ctx: LowerContext) -> TensorExpr:
    bias, limit = ctx.attr("bias"), ctx.attr("lambd")

    def function(b: Builder, x: Expr) -> Expr:
        if arithmetic.is_float(x):
            return activations.shrink(b, x, bias, limit)
        wide = b.let(tirx.Cast("float64", x))
        return arithmetic.convert(activations.shrink(b, wide, bias, limit), dtype_of(x))

    return unary(ctx, function)


@lowering("IsInf")
def _is_inf(ctx: LowerContext) -> TensorExpr:
    def function(b: Builder, x: Expr) -> Expr:
        found = tirx.const(False, "bool")
        if ctx.attr("detect_positive"):
            found = tirx.Or(found, x.equal(floats.infinity(x)))
        if ctx.attr("detect_negative"):
            found = tirx.Or(found, x.equal(floats.negate(floats.infinity(x))))
        return found

    return unary(ctx, function)


# ---- further inputs ------------------------------------------------------------------------------


@lowering("PRelu")
def _prelu(ctx: LowerContext) -> TensorExpr:
    b, x, slope = ctx.b, ctx.input(0), aligned(ctx, 1)

    def load(at: tuple[Expr, ...]) -> Expr:
        value = arithmetic.bind(b, x.load(at))
        return tirx.Select(value < _zero(value), arithmetic.multiply(value, slope(at)), value)

    return ctx.lazy(load, cost=2 + x.cost)


@lowering("SwiGLU")
def _swiglu(ctx: LowerContext) -> TensorExpr:
    b, gate, value = ctx.b, aligned(ctx, 0), aligned(ctx, 1)
    cost = COSTLY + ctx.input(0).cost + ctx.input(1).cost
    alpha = ctx.attr("alpha")
    return ctx.lazy(lambda at: activations.swish(b, gate(at), alpha) * value(at), cost=cost)


@lowering("Clip")
def _clip(ctx: LowerContext) -> TensorExpr:
    def function(b: Builder, x: Expr) -> Expr:
        if ctx.has(1):
            x = _bounded(b, x, scalar(ctx, 1), lower=True)
        return _bounded(b, x, scalar(ctx, 2), lower=False) if ctx.has(2) else x

    return unary(ctx, function, 2)


def _bounded(b: Builder, x: Expr, bound: Expr, lower: bool) -> Expr:
    x, bound = arithmetic.bind(b, x), arithmetic.bind(b, bound)
    return arithmetic.maximum(x, bound) if lower else arithmetic.minimum(x, bound)
