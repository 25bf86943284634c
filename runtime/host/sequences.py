"""Operations on sequences and optionals (ONNX, to opset 23).

A tensor that is put into a sequence or an optional is copied, because compiled code may reuse its
memory. Elements are never changed, so a tensor that is taken out is not copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..dtypes import STORAGE, STRING
from ..values import ValueList, items, tensor_from_storage, tvm_ffi
from . import Attrs, host_function


def _kept(value: Any) -> Any:
    """A machine value in memory of its own."""
    if isinstance(value, tvm_ffi.Tensor):
        return tensor_from_storage(np.from_dlpack(value).copy())
    return value


def _number(value: Any) -> int:
    return int(np.from_dlpack(value).reshape(-1)[0])


def _position(value: Any, length: int, places: int) -> int:
    """An index that may count from the end, among ``places`` valid ones."""
    index = _number(value)
    if not -length <= index < places:
        raise ValueError(f"position {index} is out of range for a sequence of {length}")
    return index + length if index < 0 else index


@host_function("SequenceConstruct", raw=True)
def sequence_construct(attrs: Attrs, *values: Any) -> tuple[Any, ...]:
    """A sequence of the given tensors."""
    return (tvm_ffi.Array([_kept(value) for value in values]),)


@host_function("SequenceEmpty", raw=True)
def sequence_empty(attrs: Attrs) -> tuple[Any, ...]:
    """A sequence without elements."""
    return (tvm_ffi.Array([]),)


@host_function("ListNew", raw=True)
def list_new(attrs: Attrs) -> tuple[Any, ...]:
    """An empty list for a loop to collect values in."""
    return (ValueList(),)


@host_function("ListAppend", raw=True)
def list_append(attrs: Attrs, values: ValueList, value: Any) -> tuple[Any, ...]:
    """The same list with one more value."""
    values.values.append(_kept(value))
    return (values,)


@host_function("SequenceAt", raw=True)
def sequence_at(attrs: Attrs, sequence: Any, position: Any) -> tuple[Any, ...]:
    """The element at a position."""
    length = len(sequence)
    return (sequence[_position(position, length, length)],)


@host_function("SequenceInsert", raw=True)
def sequence_insert(
    attrs: Attrs, sequence: Any, value: Any, position: Any = None
) -> tuple[Any, ...]:
    """The sequence with a tensor put in before a position, by default at the end."""
    values = items(sequence)
    length = len(values)
    values.insert(
        length if position is None else _position(position, length, length + 1), _kept(value)
    )
    return (tvm_ffi.Array(values),)


@host_function("SequenceErase", raw=True)
def sequence_erase(attrs: Attrs, sequence: Any, position: Any = None) -> tuple[Any, ...]:
    """The sequence without the element at a position, by default the last."""
    values = items(sequence)
    if not values:
        raise ValueError("the sequence is empty")
    del values[-1 if position is None else _position(position, len(values), len(values))]
    return (tvm_ffi.Array(values),)


@host_function("SequenceLength", raw=True)
def sequence_length(attrs: Attrs, sequence: Any) -> tuple[Any, ...]:
    """The number of elements, an int64 scalar."""
    return (tensor_from_storage(np.array(len(sequence), np.int64)),)


@host_function("ConcatFromSequence")
def concat_from_sequence(attrs: Attrs, sequence: list[np.ndarray]) -> tuple[np.ndarray, ...]:
    """The elements joined along ``axis``, a new one with ``new_axis``."""
    join = np.stack if attrs.get("new_axis", 0) else np.concatenate
    return (join(sequence, axis=attrs["axis"]),)


@host_function("StackSequence")
def stack_sequence(
    attrs: Attrs, sequence: list[np.ndarray], empty_shape: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """Elements of one shape along a new ``axis``, backwards with ``reverse``; what loops collect.

    Without elements the result has ``dtype`` and the shape ``empty_shape``, an input or, where it
    is known when the model is compiled, an attribute.
    """
    if sequence:
        ordered = sequence[::-1] if attrs.get("reverse") else sequence
        return (np.stack(ordered, axis=attrs.get("axis", 0)),)
    if "dtype" not in attrs:
        raise ValueError("the sequence is empty")
    dtype = np.dtype(object) if attrs["dtype"] == STRING else STORAGE[attrs["dtype"]]
    shape = attrs["empty_shape"] if empty_shape is None else empty_shape.tolist()
    return (np.empty(shape, dtype),)


@host_function("SplitToSequence")
def split_to_sequence(
    attrs: Attrs, data: np.ndarray, split: np.ndarray | None = None
) -> tuple[list[np.ndarray], ...]:
    """Slices along ``axis``: of size 1, of one size (the last may be less), or of given sizes."""
    axis = attrs.get("axis", 0)
    if not -data.ndim <= axis < data.ndim:
        raise ValueError(f"axis {axis} is out of range for rank {data.ndim}")
    total = data.shape[axis]
    if split is None:
        parts = np.split(data, total, axis) if total else []
        squeeze = not attrs.get("keepdims", 1)
        return ([part.squeeze(axis) if squeeze else part for part in parts],)
    borders = _borders(split, total)
    return ([] if borders is None else np.split(data, borders, axis),)


def _borders(split: np.ndarray, total: int) -> list[int] | None:
    """Where slices end, without the last end; None where there are no slices."""
    if split.ndim == 0:
        if int(split) <= 0:
            raise ValueError(f"split must be positive, it is {int(split)}")
        return list(range(int(split), total, int(split))) if total else None
    if int(split.sum()) != total or (split < 0).any():
        raise ValueError(f"split {split.tolist()} does not add up to {total}")
    return [int(end) for end in np.cumsum(split)[:-1]] if split.size else None


@host_function("Optional", raw=True)
def optional(attrs: Attrs, value: Any = None) -> tuple[Any, ...]:
    """The value as an optional; without one, an empty optional."""
    return (_kept(value),)


@host_function("OptionalHasElement", raw=True)
def optional_has_element(attrs: Attrs, value: Any = None) -> tuple[Any, ...]:
    """Whether the optional holds a value, a bool scalar."""
    return (tensor_from_storage(np.array(value is not None)),)


@host_function("OptionalGetElement", raw=True)
def optional_get_element(attrs: Attrs, value: Any) -> tuple[Any, ...]:
    """The value that the optional holds."""
    if value is None:
        raise ValueError("the optional is empty")
    return (value,)
