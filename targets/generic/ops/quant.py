"""Lowerings of QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear."""

from __future__ import annotations

from collections.abc import Callable

from tvm import tirx

from ....ir.onnx_types import element_type
from ....ir.shapes import normalize_axis
from ....ir.types import dtype as element
from ...tir import floats
from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import as_int, index
from ...tir.numeric import cast, compute_dtype, dtype_of, round_to
from ...tir.reduce import MAX, MIN, Group, collapse, for_groups
from ..registry import LowerContext, lowering
from .elementwise_cast import convert
from .quant_math import entry_index, quantize, rounded, scalar_of

Entry = Callable[[tuple[Expr, ...]], Expr]


def granular(c: LowerContext, i: int) -> Entry:
    """The entry of scale or zero point ``i`` that belongs to an element of input 0.

    The parameter is for the whole tensor, one for each index of ``axis``, or one for each block.
    """
    parameter, rank = c.input(i), c.input(0).rank
    if _is_single(parameter):
        return lambda _at: scalar_of(parameter)
    axis = normalize_axis(1 if c.attr("axis") is None else c.attr("axis"), rank)
    block = c.attr("block_size")
    if not block:
        return lambda at: parameter[entry_index(at[axis], parameter.shape[0])]

    def entry(at: tuple[Expr, ...]) -> Expr:
        return parameter.at(*at[:axis], tirx.floordiv(at[axis], index(block)), *at[axis + 1 :])

    return entry


def _is_single(parameter: TensorExpr) -> bool:
    """Is it for the whole tensor?"""
    return all(as_int(e) == 1 for e in parameter.shape)


def division_type(x: str, scale: str, precision: int | None) -> str:
    """The element type in which QuantizeLinear divides, promoted as in onnx.reference."""
    if precision:
        return element_type(precision).name
    if element(x).is_integer:
        return "float64"
    return x if x == scale else "float32"


@lowering("QuantizeLinear", "com.microsoft.QuantizeLinear")
def lower_quantize(c: LowerContext) -> TensorExpr:
    """QuantizeLinear-28: ``saturate(round(x / scale) + zero)``, by tensor, axis or block."""
    b, x = c.b, c.input(0)
    scale = granular(c, 1)
    target = c.types[0].dtype
    zero = granular(c, 2) if c.has(2) else None
    name = division_type(x.dtype, c.input(1).dtype, c.attr("precision"))
    wide = compute_dtype(name)

    def quotient(at: tuple[Expr, ...]) -> Expr:
        dividend = round_to(b.let(cast(x.load(at), wide)), name)
        divisor = round_to(b.let(cast(scale(at), wide)), name)
        return round_to(b.let(floats.divide(dividend, divisor)), name)

    if target.is_integer:
        return rounded(c, quotient, zero, 4 + x.cost, not c.has(2) or _is_single(c.input(2)))

    def load(at: tuple[Expr, ...]) -> Expr:
        value = quotient(at)
        if zero is not None and target.name == "float4e2m1":
            value = value + cast(zero(at), wide)
        return convert(b, cast(value, "float32"), target, c.attr("saturate") != 0)

    return c.lazy(load, cost=4 + x.cost)


@lowering("DequantizeLinear", "com.microsoft.DequantizeLinear")
def lower_dequantize(c: LowerContext) -> TensorExpr:
    """DequantizeLinear-28: ``(x - zero) * scale`` in float32, by tensor, axis or block."""
    x, scale = c.input(0), granular(c, 1)
    source = c.input_types[0]
    assert source is not None
    zero = granular(c, 2) if c.has(2) and source.dtype.is_integer else None

    def load(at: tuple[Expr, ...]) -> Expr:
        value = cast(x.load(at), "float32")
        value = value if zero is None else value - cast(zero(at), "float32")
        return value * cast(scale(at), "float32")

    return c.lazy(load, cost=2 + x.cost)


@lowering("DynamicQuantizeLinear")
def lower_dynamic_quantize(c: LowerContext) -> list[TensorExpr]:
    """DynamicQuantizeLinear-11: to uint8, over the range of the data, extended to include zero."""
    x, scale, zero = c.buffered(0), c.result(1), c.result(2)
    dynamic_parameters(c.b, x, scale, zero)
    y = c.lazy(lambda at: quantized_byte(c.b, x[at], scale[()], zero[()]), cost=4)
    return [y, scale, zero]


def dynamic_parameters(
    b: Builder, x: BufferTensor, scale: BufferTensor, zero: BufferTensor
) -> None:
    """Store the scale and zero point that map the range of all of ``x`` to uint8."""
    shape, axes = collapse(x.shape, range(x.rank))
    flat, dtype = b.view(x, shape), x.compute_dtype

    def program(g: Group) -> None:
        least = g.fold(lambda at: flat[at], MIN, dtype)
        most = g.fold(lambda at: flat[at], MAX, dtype)

        def store(_at: tuple[Expr, ...]) -> None:
            step, middle = range_parameters(b, least(), most())
            scale.store((), step)
            zero.store((), middle)

        g.once(store)

    for_groups(b, shape, axes, program, dtype)


def range_parameters(b: Builder, least: Expr, most: Expr) -> tuple[Expr, Expr]:
    """The scale and the zero point that map ``[least, most]``, extended to include 0, to uint8."""
    dtype = dtype_of(least)
    nothing = tirx.const(0, dtype)
    low, high = b.let(tirx.min(least, nothing)), b.let(tirx.max(most, nothing))
    span = tirx.Select(high.equal(low), tirx.const(1, dtype), high - low)
    step = b.let(span / tirx.const(255, dtype))
    return step, quantize(b, nothing - low / step, None, "uint8")


def quantized_byte(b: Builder, x: Expr, scale: Expr, zero: Expr) -> Expr:
    """``x`` as uint8 under a scale and a zero point."""
    return quantize(b, floats.divide(x, scale), zero, "uint8")


def quantized_bytes(
    b: Builder, x: BufferTensor, scale: BufferTensor, zero: BufferTensor
) -> BufferTensor:
    """``x`` as uint8 in a workspace, under a scale and a zero point of rank 0."""
    out = b.workspace(x.shape, "uint8", "quantized")
    b.nest(x.shape, lambda at: out.store(at, quantized_byte(b, x[at], scale[()], zero[()])), 4)
    return out
