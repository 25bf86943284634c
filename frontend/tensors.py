"""TensorProto and SparseTensorProto to NumPy arrays, without a copy if possible."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from ..ir import onnx_types
from ..ir.types import DType, to_numpy_dtype
from .errors import ImportFault
from .external import payload
from .source import Source

MAX_DENSE_BYTES = 1 << 31
"""Sparse tensors with more bytes than this as dense ones are refused."""

# No address space holds a tensor of more elements; larger dims are from damaged files.
MAX_ELEMENTS = 1 << 40

# The typed field with the data of an element type, if it is not in raw_data.
_TYPED_FIELDS = {
    "float32": "float_data", "complex64": "float_data",
    "float64": "double_data", "complex128": "double_data",
    "int64": "int64_data", "uint32": "uint64_data", "uint64": "uint64_data",
}  # fmt: skip
_SPAN_TYPES = {"float": ("float32", "complex64"), "double": ("float64", "complex128")}


def element_type(number: int) -> DType:
    """The element type of an ONNX number; raises :class:`ImportFault` for an unknown one."""
    try:
        return onnx_types.element_type(number)
    except ValueError:
        raise ImportFault(f"unsupported element type {_type_name(number)}") from None


def to_array(source: Source, tensor: onnx.TensorProto) -> np.ndarray:
    """The array of a tensor; it shares the model's memory if the bytes need no conversion.

    Raises :class:`ImportFault` if type, dims and data do not fit together.
    """
    kind = element_type(tensor.data_type)
    dims = checked_dims(tensor.dims)
    if tensor.HasField("segment"):
        raise ImportFault("a tensor in segments")
    if kind.name == "string":
        return _strings(tensor, dims)
    found = payload(source, tensor)
    if found is not None:
        data, field = found
        if field != "raw" and kind.name not in _SPAN_TYPES.get(field, ()):
            raise ImportFault(f"{field}_data in a tensor of {kind}")
        return _from_bytes(data, kind, dims)
    if tensor.HasField("raw_data"):
        return _from_bytes(tensor.raw_data, kind, dims)
    return _from_typed(tensor, kind, dims)


def checked_dims(dims: Sequence[int]) -> tuple[int, ...]:
    """The dims of a tensor; raises :class:`ImportFault` if they are negative or too large."""
    shape = tuple(dims)
    if any(d < 0 for d in shape):
        raise ImportFault(f"negative dimensions {_brief(shape)}")
    if math.prod(d for d in shape if d) > MAX_ELEMENTS or len(shape) > 64:
        raise ImportFault(f"absurd dimensions {_brief(shape)}")
    return shape


def _from_bytes(data: bytes | memoryview, kind: DType, dims: tuple[int, ...]) -> np.ndarray:
    count = math.prod(dims)
    expected = _packed_size(kind, count) or count * to_numpy_dtype(kind).itemsize
    if len(data) != expected:
        raise ImportFault(
            f"dims {_brief(dims)} of {kind} need {expected} bytes of data, not {len(data)}"
        )
    if count == 0:
        return np.empty(dims, to_numpy_dtype(kind))
    if kind.kind == "b":
        return np.not_equal(np.frombuffer(data, np.uint8), 0).reshape(dims)
    if kind.bits < 8:
        return _unpack(np.frombuffer(data, np.uint8), kind, count).reshape(dims)
    return np.frombuffer(data, to_numpy_dtype(kind)).reshape(dims)


def _packed_size(kind: DType, count: int) -> int:
    """The number of bytes of packed elements, of 2 or 4 bits; 0 for other element types."""
    return -(-count * kind.bits // 8) if kind.bits < 8 and kind.kind != "b" else 0


def _unpack(packed: np.ndarray, kind: DType, count: int) -> np.ndarray:
    """Elements of 2 or 4 bits, the first in the low bits of each byte."""
    per_byte = 8 // kind.bits
    parts = np.empty((len(packed), per_byte), np.uint8)
    for i in range(per_byte):
        parts[:, i] = packed >> (i * kind.bits)
    bits = parts.reshape(-1)[:count] & ((1 << kind.bits) - 1)
    if kind.kind == "i":
        sign = 1 << (kind.bits - 1)
        return ((bits ^ sign).astype(np.int8) - sign).astype(to_numpy_dtype(kind))
    if kind.kind == "u":
        return bits.astype(to_numpy_dtype(kind))
    return bits.view(to_numpy_dtype(kind))


def _from_typed(tensor: onnx.TensorProto, kind: DType, dims: tuple[int, ...]) -> np.ndarray:
    field = _TYPED_FIELDS.get(kind.name, "int32_data")
    values = getattr(tensor, field)
    count = math.prod(dims)
    packed = _packed_size(kind, count)
    expected = packed or count * (2 if kind.kind == "c" else 1)
    if len(values) != expected:
        raise ImportFault(
            f"dims {_brief(dims)} of {kind} need {expected} entries in {field}, not {len(values)}"
        )
    return _typed_array(values, kind, count, packed > 0).reshape(dims)


def _typed_array(values: Any, kind: DType, count: int, packed: bool) -> np.ndarray:
    target = to_numpy_dtype(kind)
    if kind.kind == "c":
        return np.array(values, f"f{target.itemsize // 2}").view(target)
    if kind.name in _TYPED_FIELDS:
        return np.array(values, np.uint64 if kind.kind == "u" else target).astype(target)
    wide = np.array(values, np.int32)
    if packed:
        return _unpack(wide.astype(np.uint8), kind, count)
    if kind.kind == "b":
        return np.not_equal(wide, 0)
    if kind.is_float:
        return wide.astype(f"u{target.itemsize}").view(target)
    return wide.astype(target)


def _strings(tensor: onnx.TensorProto, dims: tuple[int, ...]) -> np.ndarray:
    values = tensor.string_data
    if tensor.external_data or len(values) != math.prod(dims):
        raise ImportFault(f"dims {_brief(dims)} of string do not fit {len(values)} strings")
    out = np.empty(len(values), object)
    out[:] = [decode(v) for v in values]
    return out.reshape(dims)


def decode(text: bytes) -> str:
    """UTF-8 to a string; raises :class:`ImportFault`."""
    try:
        return text.decode("utf-8")
    except UnicodeDecodeError as e:
        raise ImportFault(f"a string that is not UTF-8: {text[:40]!r}") from e


def to_dense(source: Source, sparse: onnx.SparseTensorProto) -> np.ndarray:
    """The dense array of a sparse tensor in COO form (linear or one index per dimension)."""
    dims = checked_dims(sparse.dims)
    values, indices = to_array(source, sparse.values), to_array(source, sparse.indices)
    count = math.prod(dims)
    if values.ndim != 1 or indices.dtype != np.int64 or values.dtype == object:
        raise ImportFault("a sparse tensor needs values[N] and int64 indices")
    if count * max(values.dtype.itemsize, 1) > MAX_DENSE_BYTES:
        raise ImportFault(f"a sparse tensor of dims {_brief(dims)} is too large when dense")
    flat = _linear(indices, dims)
    if len(flat) != len(values) or (len(flat) and not 0 <= flat.min() <= flat.max() < count):
        raise ImportFault(f"the indices of a sparse tensor of dims {_brief(dims)} do not fit")
    out = np.zeros(count, values.dtype)
    out[flat] = values
    return out.reshape(dims)


def _linear(indices: np.ndarray, dims: tuple[int, ...]) -> np.ndarray:
    if indices.ndim == 1:
        return indices
    if indices.ndim != 2 or indices.shape[1] != len(dims):
        raise ImportFault(f"sparse indices of shape {_brief(indices.shape)} for {_brief(dims)}")
    if len(indices) and ((indices < 0) | (indices >= np.array(dims))).any():
        raise ImportFault(f"the indices of a sparse tensor of dims {_brief(dims)} do not fit")
    strides = [math.prod(dims[i + 1 :]) for i in range(len(dims))]
    return indices @ np.array(strides, np.int64)


def _type_name(number: int) -> str:
    return next((k for k, v in onnx.TensorProto.DataType.items() if v == number), str(number))


def _brief(dims: Sequence[int]) -> str:
    text = ", ".join(str(d) for d in dims[:8])
    return f"[{text}{', ...' if len(dims) > 8 else ''}]"
