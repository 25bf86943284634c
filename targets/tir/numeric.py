"""The types that elements are stored in and computed in.

Floats narrower than 32 bits are loaded as float32 and rounded when they are stored, so a fused
chain of operations rounds once. Types that LLVM has no arithmetic for are stored as bit patterns:
bfloat16 as uint16, float8 and float4 as one uint8 per element, int4 and int2 as int8.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...contract import STORAGE
from ...ir.types import dtype as element_type
from .small_floats import CODECS, like

Expr = Any

_COMPUTE = {
    "float16": "float32",
    **{k: "float32" for k in STORAGE if k.startswith(("float", "bfloat"))},
}


def storage_dtype(name: str) -> str:
    """The TVM dtype of a buffer that holds elements of IR type ``name``."""
    return STORAGE.get(name, name)


def compute_dtype(name: str) -> str:
    """The TVM dtype in which values of IR type ``name`` are computed."""
    return _COMPUTE.get(name, storage_dtype(name))


def integer_range(name: str) -> tuple[int, int]:
    """The least and greatest value of an integer element type such as ``int4``."""
    t = element_type(name)
    if t.kind == "u":
        return 0, 2**t.bits - 1
    return -(2 ** (t.bits - 1)), 2 ** (t.bits - 1) - 1


def dtype_of(value: Expr) -> str:
    """The TVM dtype of a scalar or vector expression."""
    return str(value.ty.dtype)


def cast(value: Expr, to: str) -> Expr:
    """``value`` in the TVM dtype ``to``, or itself if it has that already."""
    return value if dtype_of(value) == to else tirx.Cast(to, value)


def decode(stored: Expr, name: str) -> Expr:
    """The compute-type value of a stored element, or of a vector of them if they are bfloat16 or
    have arithmetic of their own.
    """
    codec = CODECS.get(name)
    return codec[0](stored) if codec else cast(stored, like(stored, compute_dtype(name)))


def encode(value: Expr, name: str) -> Expr:
    """The stored element for a compute-type value, rounded to nearest even."""
    codec = CODECS.get(name)
    return codec[1](value) if codec else cast(value, storage_dtype(name))


def round_to(value: Expr, name: str) -> Expr:
    """``value`` after rounding to IR type ``name``, still in its compute type."""
    if compute_dtype(name) == storage_dtype(name) and name not in CODECS:
        return value
    return decode(encode(value, name), name)


def narrow(value: Expr, name: str) -> Expr:
    """An integer cut to the bits of IR type ``name`` (int4, uint2 ...); other types stay as they
    are.

    The cut is two's complement, as ONNX's ``Cast`` and C define it: 9 is -7 in int4. The result is
    in the compute type.
    """
    bits = {"int4": 4, "int2": 2, "uint4": 4, "uint2": 2}.get(name)
    if bits is None:
        return cast(value, compute_dtype(name))
    if name.startswith("u"):
        return tirx.bitwise_and(cast(value, "uint8"), tirx.const((1 << bits) - 1, "uint8"))
    unused = tirx.const(8 - bits, "int8")
    return tirx.shift_right(tirx.shift_left(cast(value, "int8"), unused), unused)
