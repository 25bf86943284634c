"""Lowerings of com.microsoft's pools over quantized tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from ....ir.windows import pool_window
from ...tir import floats
from ...tir.builder import Expr, TensorExpr
from ...tir.extents import index, product
from ...tir.numeric import cast
from ...tir.reduce import SUM, Group, for_groups
from ..registry import LowerContext, lowering
from .pool import counter, pool_geometry
from .pool_windows import Pool, pool_windows
from .quant_elementwise import dequantized, quantized
from .quant_math import requantize, scalar_of


def channels_second(at: tuple[Any, ...]) -> tuple[Any, ...]:
    """(N, ..., C) as (N, C, ...)."""
    return (at[0], at[-1], *at[1:-1])


def channels_last(at: tuple[Any, ...]) -> tuple[Any, ...]:
    """(N, C, ...) as (N, ..., C)."""
    return (at[0], *at[2:], at[1])


@lowering("com.microsoft.QLinearAveragePool")
def lower_qlinear_average_pool(c: LowerContext) -> TensorExpr:
    """QLinearAveragePool-1: the average of dequantized elements, quantized."""
    x, source, last = c.input(0), c.input_types[0], bool(c.attr("channels_last"))
    assert source is not None
    value = dequantized(c, x.load, 1, 2)
    shape = channels_second(x.shape) if last else x.shape
    moved = TensorExpr(
        "float32", shape, lambda at: value(channels_last(at) if last else at), x.cost + 2
    )
    dims = channels_second(source.dims) if last else source.dims
    window = pool_window(c.node, dims[2:])
    geometry = pool_geometry(c, window)
    count = counter(c, window, geometry, shape[2:])

    def finish(total: Expr, at: Sequence[Expr]) -> Expr:
        return quantized(c, total / cast(count(at), "float32"), 3, 4)

    zero = tirx.const(0, "float32")
    out = c.b.workspace(channels_second(c.out_shape()), x.dtype) if last else c.result()
    pool_windows(c.b, Pool(moved, geometry, out, zero, lambda a, v: a + v, finish))
    return c.lazy(lambda at: out[channels_second(at)]) if last else out


@lowering("com.microsoft.QLinearGlobalAveragePool")
def lower_qlinear_global_average_pool(c: LowerContext) -> TensorExpr:
    """QLinearGlobalAveragePool-1: an exact sum in int32, requantized in float32."""
    b, x = c.b, c.input(0)
    axes = range(1, x.rank - 1) if c.attr("channels_last") else range(2, x.rank)
    result = c.result()
    kept = [e for i, e in enumerate(x.shape) if i not in axes]
    out, count = b.view(result, kept), product([x.shape[a] for a in axes])

    def program(g: Group) -> None:
        zero = cast(scalar_of(c.input(2)), "int32")
        total = g.fold(lambda at: cast(x[at], "int32") - zero, SUM, "int32")

        def store(at: tuple[Expr, ...]) -> None:
            elements = cast(index(count), "float32")
            scale = floats.divide(scalar_of(c.input(1)), scalar_of(c.input(3)) * elements)
            out.store(at, requantize(b, total(), scale, scalar_of(c.input(4)), out.dtype))

        g.once(store)

    for_groups(b, x.shape, axes, program, "int32", cost=2 + x.cost)
    return result
