"""Storage of element types, as seen by the code generator (see ``targets.tir.numeric``)."""

from __future__ import annotations

from ..ir.types import dtype

_STORED = {"bfloat16": "uint16", "int4": "int8", "int2": "int8", "uint4": "uint8", "uint2": "uint8"}


def storage_name(name: str) -> str:
    """The TVM dtype that holds elements of IR type ``name`` in memory."""
    if name.startswith(("float8", "float4")):
        return "uint8"
    return _STORED.get(name, name)


def storage_bytes(name: str) -> int:
    """Bytes of one element in memory."""
    return max(1, dtype(storage_name(name)).bits // 8)
