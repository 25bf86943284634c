"""How element types are stored in memory and computed with.

Floats narrower than 32 bits are loaded as float32 and rounded when stored, so a fused chain
rounds once. Types that LLVM has no arithmetic for live in memory as their bit patterns:
bfloat16 as uint16, float8/float4 as one uint8 code an element, int4/int2 as int8.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

Expr = Any

_STORAGE = {
    "bfloat16": "uint16",
    **dict.fromkeys(
        ("float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "float8e8m0",
         "float4e2m1", "uint4", "uint2"),
        "uint8",
    ),
    **dict.fromkeys(("int4", "int2"), "int8"),
}  # fmt: skip
_COMPUTE = {
    "float16": "float32",
    **{k: "float32" for k in _STORAGE if k.startswith(("float", "bfloat"))},
}


def storage_dtype(name: str) -> str:
    """The TVM dtype of a buffer that holds elements of IR type ``name``."""
    return _STORAGE.get(name, name)


def compute_dtype(name: str) -> str:
    """The TVM dtype in which values of IR type ``name`` are computed."""
    return _COMPUTE.get(name, storage_dtype(name))


def dtype_of(value: Expr) -> str:
    """The TVM dtype of a scalar or vector expression."""
    return str(value.ty.dtype)


def cast(value: Expr, to: str) -> Expr:
    """``value`` in the TVM dtype ``to``; no node where it already is."""
    return value if dtype_of(value) == to else tirx.Cast(to, value)


# IR type -> (storage expression -> compute expression, the reverse with rounding)
Codec = tuple[Callable[[Expr], Expr], Callable[[Expr], Expr]]
CODECS: dict[str, Codec] = {}


def decode(stored: Expr, name: str) -> Expr:
    """The compute-type value of a stored element."""
    codec = CODECS.get(name)
    return codec[0](stored) if codec else cast(stored, compute_dtype(name))


def encode(value: Expr, name: str) -> Expr:
    """The stored element for a compute-type value, rounded to nearest even."""
    codec = CODECS.get(name)
    return codec[1](value) if codec else cast(value, storage_dtype(name))


def round_to(value: Expr, name: str) -> Expr:
    """``value`` after rounding to IR type ``name``, still in its compute type."""
    if compute_dtype(name) == storage_dtype(name) and name not in CODECS:
        return value
    return decode(encode(value, name), name)


def _decode_bf16(stored: Expr) -> Expr:
    wide = tirx.shift_left(tirx.Cast("uint32", stored), tirx.const(16, "uint32"))
    return tirx.reinterpret("float32", wide)


def _encode_bf16(value: Expr) -> Expr:
    bits = tirx.reinterpret("uint32", value)
    sixteen = tirx.const(16, "uint32")
    odd = tirx.bitwise_and(tirx.shift_right(bits, sixteen), tirx.const(1, "uint32"))
    rounded = tirx.shift_right(bits + odd + tirx.const(0x7FFF, "uint32"), sixteen)
    quiet = tirx.bitwise_or(tirx.shift_right(bits, sixteen), tirx.const(0x40, "uint32"))
    is_nan = tirx.bitwise_and(bits, tirx.const(0x7FFFFFFF, "uint32")) > tirx.const(
        0x7F800000, "uint32"
    )
    return tirx.Cast("uint16", tirx.Select(is_nan, quiet, rounded))


CODECS["bfloat16"] = (_decode_bf16, _encode_bf16)
