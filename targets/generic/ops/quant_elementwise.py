"""Lowerings of com.microsoft's element-wise ops on quantized tensors."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from ....ir.ops.quant_evaluate import quotient_of_scales
from ....ir.shapes import normalize_axis
from ...tir import floats, math
from ...tir.builder import Expr, TensorExpr
from ...tir.extents import as_int, index
from ...tir.numeric import cast
from ...tir.reduce import MAX, SUM, Group, for_groups
from ...tir.rounded import Rounded
from ..broadcast import aligned
from ..registry import LowerContext, lowering
from .quant_math import quantize, requantize, rounded, scalar_of

Load = Callable[[tuple[Expr, ...]], Expr]


def dequantized(c: LowerContext, x: Load, scale: int, zero: int) -> Load:
    """``(x - zero) * scale`` in float32; inputs ``scale`` and ``zero`` are for the whole tensor."""

    def load(at: tuple[Expr, ...]) -> Expr:
        return cast(_centered(c, x(at), zero), "float32") * scalar_of(c.input(scale))

    return load


def _centered(c: LowerContext, value: Expr, zero: int) -> Expr:
    value = cast(value, "int32")
    return value - cast(scalar_of(c.input(zero)), "int32") if c.has(zero) else value


def quantized(c: LowerContext, value: Expr, scale: int, zero: int) -> Expr:
    """A float as the output's element type under inputs ``scale`` and ``zero``."""
    steps = floats.divide(value, scalar_of(c.input(scale)))
    shift = scalar_of(c.input(zero)) if c.has(zero) else None
    return quantize(c.b, steps, shift, c.out_dtype())


@lowering("com.microsoft.QLinearAdd")
def lower_qlinear_add(c: LowerContext) -> TensorExpr:
    """QLinearAdd-1: the sum of the operands, each in steps of the result.

    The scales are divided first, which constants are at compile time: elements are not.
    """
    operands = [(_whole_operand(c, i), i) for i in (0, 3)]

    def steps(at: tuple[Expr, ...]) -> Expr:
        first, second = (x(at) * _quotient(c, i + 1, 6) for x, i in operands)
        return first + second

    zero = (lambda _at: scalar_of(c.input(7))) if c.has(7) else None
    return rounded(c, steps, zero, 8)


def _whole_operand(c: LowerContext, i: int) -> Load:
    """Operand ``i`` less its zero point, which is the next but one, as a whole float32."""
    x, shape = c.input(i), c.input_types[i]
    zero = scalar_of(c.input(i + 2)) if c.has(i + 2) else tirx.const(0, "int32")
    if isinstance(x, Rounded) and shape is not None and shape.dims == c.types[0].dims:
        same = as_int(zero), as_int(x.zero())
        if same[0] is not None and same[0] == same[1]:
            return x.centered
    load = aligned(c, i)
    return lambda at: cast(_centered(c, load(at), i + 2), "float32")


def _quotient(c: LowerContext, i: int, k: int) -> Expr:
    """The quotient of two scales. One below the normal numbers is zero: a byte times that is far
    less than a step, and takes CPUs a hundred cycles.
    """
    above, below = c.known(i), c.known(k)
    if above is None or below is None:
        return floats.divide(scalar_of(c.input(i)), scalar_of(c.input(k)))
    return tirx.const(float(quotient_of_scales(above, below).reshape(())), "float32")


@lowering("com.microsoft.QLinearMul")
def lower_qlinear_mul(c: LowerContext) -> TensorExpr:
    """QLinearMul-1: the exact product of the centered operands, rescaled in float32."""
    a, b = aligned(c, 0), aligned(c, 3)

    def load(at: tuple[Expr, ...]) -> Expr:
        product = _centered(c, a(at), 2) * _centered(c, b(at), 5)
        scale = floats.divide(scalar_of(c.input(1)) * scalar_of(c.input(4)), scalar_of(c.input(6)))
        shift = scalar_of(c.input(7)) if c.has(7) else None
        return requantize(c.b, product, scale, shift, c.out_dtype())

    return c.lazy(load, cost=8)


@lowering("com.microsoft.QLinearSigmoid")
def lower_qlinear_sigmoid(c: LowerContext) -> TensorExpr:
    """QLinearSigmoid-1: the sigmoid of the dequantized input, quantized."""
    x = dequantized(c, c.input(0).load, 1, 2)
    return c.lazy(lambda at: quantized(c, math.sigmoid(c.b, c.b.let(x(at))), 3, 4), cost=16)


@lowering("com.microsoft.QLinearLeakyRelu")
def lower_qlinear_leaky_relu(c: LowerContext) -> TensorExpr:
    """QLinearLeakyRelu-1: the leaky ReLU of the dequantized input, quantized."""
    x = dequantized(c, c.input(0).load, 1, 2)
    slope = tirx.const(float(c.attr("alpha")), "float32")

    def load(at: tuple[Expr, ...]) -> Expr:
        value = c.b.let(x(at))
        return quantized(
            c, tirx.Select(value < tirx.const(0, "float32"), value * slope, value), 3, 4
        )

    return c.lazy(load, cost=8)


@lowering("com.microsoft.QLinearSoftmax")
def lower_qlinear_softmax(c: LowerContext) -> TensorExpr:
    """QLinearSoftmax-1; before opset 13 all dims from ``axis`` on are normalised together."""
    b, source, out = c.b, c.buffered(0), c.result()
    first = normalize_axis(c.attr("axis"), source.rank)
    axes = [first] if c.attr("opset") >= 13 else list(range(first, source.rank))
    x = dequantized(c, source.load, 1, 2)

    def program(g: Group) -> None:
        peak = g.fold(x, MAX, "float32")
        total = g.fold(lambda at: math.exp(b, b.let(x(at) - peak())), SUM, "float32")

        def store(at: tuple[Expr, ...]) -> None:
            share = math.exp(b, b.let(x(at) - peak())) / total()
            out.store(at, quantized(c, share, 3, 4))

        g.each(store)

    for_groups(b, source.shape, axes, program, "float32", cost=24)
    return out


@lowering("com.microsoft.QLinearConcat")
def lower_qlinear_concat(c: LowerContext) -> TensorExpr:
    """QLinearConcat-1: inputs are (tensor, scale, zero point) triples, each requantized."""
    b, out = c.b, c.result()
    axis = normalize_axis(c.attr("axis"), out.rank)
    start: Expr = index(0)
    for i in range(2, len(c.inputs), 3):
        part = c.input(i)
        value = dequantized(c, part.load, i + 1, i + 2)

        def store(at: tuple[Expr, ...], value: Load = value, start: Expr = start) -> None:
            where = (*at[:axis], at[axis] + start, *at[axis + 1 :])
            out.store(where, quantized(c, value(at), 0, 1))

        b.nest(part.shape, store, cost=8 + part.cost)
        start = start + index(part.shape[axis])
    return out
