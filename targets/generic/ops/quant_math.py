"""Scalar arithmetic of quantization: rounding, saturation and requantization."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ....ir.types import BYTES
from ...tir.builder import Builder, Expr, TensorExpr
from ...tir.extents import as_int, index
from ...tir.numeric import cast, compute_dtype, dtype_of, integer_range
from ...tir.rounded import Rounded
from ..registry import LowerContext


def saturate(value: Expr, name: str) -> Expr:
    """A whole float as an integer of element type ``name``; NaN gives the least."""
    low, high = (tirx.const(v, dtype_of(value)) for v in integer_range(name))
    clamped = tirx.min(tirx.max(value, low), high)
    return cast(cast(clamped, "int32"), compute_dtype(name))


def round_even(value: Expr) -> Expr:
    """A float rounded to the nearest whole number, halves to even."""
    return tirx.nearbyint(value)


def quantize(b: Builder, value: Expr, zero: Expr | None, name: str) -> Expr:
    """``saturate(round(value) + zero)`` of a float, as integer element type ``name``.

    Halves are rounded to even; NaN gives the least. The limits, less the zero point, are whole
    numbers, so that clamping comes first and rounding is part of the conversion.
    """
    shift = tirx.const(0, "int32") if zero is None else cast(zero, "int32")
    low, high = (cast(tirx.const(v, "int32") - shift, dtype_of(value)) for v in integer_range(name))
    clamped = tirx.min(tirx.max(value, low), high)
    return cast(b.nearest(clamped) + shift, compute_dtype(name))


def requantize(b: Builder, total: Expr, scale: Expr, zero: Expr | None, name: str) -> Expr:
    """``saturate(round(total * scale) + zero)`` in float32, as ONNX's QLinear ops define it."""
    return quantize(b, cast(total, "float32") * scale, zero, name)


def rounded(
    c: LowerContext, steps: Callable[[tuple[Expr, ...]], Expr],
    zero: Callable[[tuple[Expr, ...]], Expr] | None, cost: int, one_zero: bool = True,
) -> TensorExpr:  # fmt: skip
    """``saturate(round(steps) + zero)`` as the op's result.

    With ``one_zero``, all elements have the same zero point.
    """
    name = c.out_dtype()

    def load(at: tuple[Expr, ...]) -> Expr:
        return quantize(c.b, steps(at), None if zero is None else zero(at), name)

    x = c.lazy(load, cost=cost)
    if not one_zero or name not in BYTES:
        return x

    def shift() -> Expr:
        entry = tirx.const(0, "int32") if zero is None else zero((index(0),) * x.rank)
        known = as_int(entry)
        return cast(entry, "int32") if known is None else tirx.const(known, "int32")

    return Rounded(x.dtype, x.shape, x.load, x.cost, steps=steps, zero=shift)


def scalar_of(x: TensorExpr) -> Expr:
    """The one element of a per-tensor parameter of rank 0, or of extents 1."""
    return x[(0,) * x.rank]


def entry_index(i: Any, extent: Any) -> Any:
    """The index of the entry for ``i``: 0 on an axis of one entry for all, ``i`` on one of one for
    each.
    """
    known = as_int(extent)
    if known is None:
        return tirx.min(i, index(extent) - 1)
    return index(0) if known == 1 else i


def centered(x: TensorExpr, zero: Any, dtype: str = "int32") -> TensorExpr:
    """``x - zero(indices)`` with elements of the integer ``dtype``."""

    def load(at: tuple[Expr, ...]) -> Expr:
        return cast(cast(x.load(at), "int32") - cast(zero(at), "int32"), dtype)

    return TensorExpr(dtype, x.shape, load, x.cost + 1)
