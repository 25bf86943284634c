"""Conversion of values between users and the virtual machine.

A tensor is a DLPack tensor (`tvm_ffi.Tensor`) in storage dtype, contiguous and aligned to 64
bytes; a sequence is a `tvm_ffi.Array`; an empty optional is None. A tensor of strings is an opaque
Python object, a `StringTensor`, which the machine only hands on from one host function to another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..contract import ALIGNMENT
from ..tvm_import import import_tvm_ffi
from . import guard
from .dtypes import STRING, from_storage, is_exotic, to_storage
from .manifest import ValueSpec

tvm_ffi = import_tvm_ffi()

array_get = tvm_ffi.get_global_func("ffi.ArrayGetItem")
import_array = tvm_ffi.from_dlpack
export = np.from_dlpack
Tensor, Array = tvm_ffi.Tensor, tvm_ffi.Array


class StringTensor:
    """A tensor of strings; ``array`` is an object array of `str`."""

    __slots__ = ("array",)

    def __init__(self, array: np.ndarray) -> None:
        self.array = array


class ValueList:
    """A growing list of machine values, opaque to the machine like a `StringTensor`."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: list[Any] = []


def aligned_empty(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """An uninitialised array whose data starts on a 64-byte border, or is guarded."""
    if guard.ACTIVE is not None:
        return guard.ACTIVE.empty(shape, dtype)
    nbytes = dtype.itemsize
    for dim in shape:
        nbytes *= dim
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -import_array(raw).data_ptr() % ALIGNMENT
    return raw[start : start + nbytes].view(dtype).reshape(shape)


def tensor_from_storage(array: np.ndarray) -> Any:
    """A `tvm_ffi.Tensor` of an array in storage dtype, copied only where it has to be."""
    if array.flags.carray and guard.ACTIVE is None:
        tensor = import_array(array)
        if tensor.data_ptr() % ALIGNMENT == 0:
            return tensor
    copy = aligned_empty(array.shape, array.dtype)
    copy[...] = array
    return import_array(copy)


def to_vm(value: Any, spec: ValueSpec) -> Any:
    """A checked value (array, list of values, None) as the machine takes it."""
    if value is None:
        return None
    if spec.elem is not None:
        if spec.kind == "optional":
            return to_vm(value, spec.elem)
        return Array([to_vm(item, spec.elem) for item in value])
    if spec.dtype == STRING:
        return StringTensor(value)
    return tensor_from_storage(to_storage(value, spec.dtype))


def from_vm(value: Any, spec: ValueSpec, owns: Callable[[int], bool]) -> Any:
    """A value of the machine as users get it: arrays, lists, maps, None.

    An array shares the tensor's memory and keeps it alive. It is a copy where ``owns(address)`` is
    False: the memory there may belong to something else.
    """
    if isinstance(value, Tensor):
        array = export(value)
        if not owns(value.data_ptr()):
            array = array.copy()
        if spec.keys:
            return as_maps(array, spec.keys)
        return from_storage(array, spec.dtype) if is_exotic(spec.dtype) else array
    if value is None:
        return None
    if isinstance(value, StringTensor):
        return value.array.copy()
    elem = spec.elem or spec
    if spec.kind == "optional":
        return from_vm(value, elem, owns)
    return [from_vm(item, elem, owns) for item in items(value)]


def as_maps(rows: np.ndarray, keys: Sequence[int | str]) -> list[dict[int | str, float]]:
    """For each row a map from ``keys`` to its numbers; the first of equal keys counts."""
    columns = {key: at for at, key in reversed(list(enumerate(keys)))}
    places = sorted(columns.items(), key=lambda pair: pair[1])
    return [{key: row[at] for key, at in places} for row in rows.tolist()]


def items(array: Any) -> list[Any]:
    """The elements of a `tvm_ffi.Array`."""
    return [array_get(array, index) for index in range(len(array))]
