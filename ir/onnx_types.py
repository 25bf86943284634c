"""ONNX's numbers for element types (``TensorProto.DataType``), as in attributes like ``to``."""

from __future__ import annotations

from ..errors import OperandError
from .types import DType, dtype

_NAMES = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64",
    8: "string", 9: "bool", 10: "float16", 11: "float64", 12: "uint32", 13: "uint64",
    14: "complex64", 15: "complex128", 16: "bfloat16", 17: "float8e4m3fn", 18: "float8e4m3fnuz",
    19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4", 22: "int4", 23: "float4e2m1",
    24: "float8e8m0", 25: "uint2", 26: "int2",
}  # fmt: skip
_CODES = {name: code for code, name in _NAMES.items()}


def element_type(code: int | str) -> DType:
    """The element type with ONNX's number ``code`` (or this name).

    Raises ``ValueError`` for a number or name that stands for no element type.
    """
    if isinstance(code, str):
        return dtype(code)
    name = _NAMES.get(int(code))
    if name is None:
        raise OperandError(f"{code} is not the number of an element type")
    return dtype(name)


def element_code(t: DType | str) -> int:
    """ONNX's number for an element type."""
    return _CODES[dtype(t).name]
