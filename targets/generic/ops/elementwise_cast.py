"""Lowerings of conversions, reinterpretation and identity."""

from __future__ import annotations

from tvm import tirx

from ....ir.types import DType
from ...tir import arithmetic
from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import index
from ...tir.floats import at_least, at_most
from ...tir.numeric import (
    cast,
    compute_dtype,
    decode,
    dtype_of,
    encode,
    narrow,
    round_to,
    storage_dtype,
)
from ...tir.small_floats import CODECS, SMALL_FLOATS, decode_e8m0, encode_e8m0
from ..registry import LowerContext, lowering

_CAST_COST = {"bfloat16": 4, **dict.fromkeys(CODECS, 12)}


@lowering("Identity")
def _identity(ctx: LowerContext) -> TensorExpr:
    return ctx.input(0)


@lowering("Cast", "CastLike")
def _cast(ctx: LowerContext) -> TensorExpr:
    b, x = ctx.b, ctx.input(0)
    source, target = _element_types(ctx)
    if source == target:
        return x
    saturate, mode = bool(ctx.attr("saturate")), ctx.attr("round_mode") or "up"

    def load(at: tuple[Expr, ...]) -> Expr:
        value = b.let(x.load(at))
        if target.name == "float8e8m0":
            return decode_e8m0(encode_e8m0(_to_float(value, "float32"), mode, saturate))
        return convert(b, value, target, saturate)

    return ctx.lazy(load, cost=_CAST_COST.get(target.name, 1) + x.cost)


def _element_types(ctx: LowerContext) -> tuple[DType, DType]:
    source = ctx.input_types[0]
    assert source is not None
    return source.dtype, ctx.types[0].dtype


def convert(b: Builder, value: Expr, target: DType, saturate: bool = True) -> Expr:
    """A compute-type value converted to ``target`` as ONNX's ``Cast`` does, in its compute type.

    ``saturate`` is for 8-bit floats: numbers that are too large become the largest one.
    """
    if target.kind == "b":
        return arithmetic.convert(value, "bool")
    if target.is_integer:
        if target.bits >= 8:
            return arithmetic.convert(value, target.name)
        return narrow(arithmetic.convert(value, "int32"), target.name)
    if target.name == "float16" and dtype_of(value) == "float64":  # rounds once
        return tirx.Cast("float32", tirx.Cast("float16", value))
    result = _to_float(value, compute_dtype(target.name))
    small = SMALL_FLOATS.get(target.name)
    if small is not None and saturate:
        result = at_least(b.let(at_most(b.let(result), small.max)), -small.max)
    return round_to(b.let(result), target.name)


def _to_float(value: Expr, to: str) -> Expr:
    return arithmetic.convert(value, to)


# ---- BitCast -------------------------------------------------------------------------------------


@lowering("BitCast")
def _bit_cast(ctx: LowerContext) -> TensorExpr:
    b, x = ctx.b, ctx.input(0)
    source, target = _element_types(ctx)

    def bits(at: tuple[Expr, ...]) -> Expr:
        raw = _stored_bits(b, x, source, at)
        return _reinterpreted(raw, source, target)

    if storage_dtype(target.name) == compute_dtype(target.name):
        return ctx.lazy(lambda at: decode(bits(at), target.name), cost=x.cost)
    # Conversion to float32 would make a signalling NaN quiet, so the bits are stored as they are.
    out = ctx.result()
    b.nest(out.shape, lambda at: out.store_raw(at or (index(0),), bits(at)), 1 + x.cost)
    return out


def _stored_bits(b: Builder, x: TensorExpr, source: DType, at: tuple[Expr, ...]) -> Expr:
    if isinstance(x, BufferTensor):
        return x.load_raw(at or (index(0),))
    return encode(b.let(x.load(at)), source.name)


def _reinterpreted(raw: Expr, source: DType, target: DType) -> Expr:
    to = storage_dtype(target.name)
    if source.kind == "b" or target.kind == "b":
        return arithmetic.convert(raw, to)
    if target.bits < 8:
        unsigned = narrow(cast(raw, "uint8"), f"uint{target.bits}")
        return cast(narrow(unsigned, target.name) if target.kind in "iu" else unsigned, to)
    return raw if dtype_of(raw) == to else tirx.reinterpret(to, raw)
