"""Operations that select by value: Unique, NonZero (ONNX, to opset 23)."""

from __future__ import annotations

import numpy as np

from . import Attrs, host_function


@host_function("NonZero")
def nonzero(attrs: Attrs, data: np.ndarray) -> tuple[np.ndarray, ...]:
    """Indices of what is not zero, [rank, count] int64; a scalar counts as one element."""
    return (np.array(np.nonzero(np.atleast_1d(data)), np.int64),)


@host_function("Unique")
def unique(attrs: Attrs, data: np.ndarray) -> tuple[np.ndarray, ...]:
    """Distinct elements, or slices along ``axis``; their first places, the inverse, the counts."""
    axis = attrs.get("axis")
    slices = data.reshape(-1) if axis is None else np.moveaxis(data, axis, 0)
    if data.dtype == object:
        first, inverse, counts = _unique_by_key(slices)
    else:
        _, first, inverse, counts = np.unique(
            _comparable(slices, attrs), True, True, True, axis=None if axis is None else 0
        )
    inverse = inverse.reshape(-1)
    if not attrs.get("sorted", 1):
        order = np.argsort(first)
        rank = np.argsort(order)
        first, counts, inverse = first[order], counts[order], rank[inverse]
    values = slices[first]
    if axis is not None:
        values = np.moveaxis(values, 0, axis)
    return values.copy(), *(np.asarray(part, np.int64) for part in (first, inverse, counts))


def _comparable(data: np.ndarray, attrs: Attrs) -> np.ndarray:
    """An array that sorts as the values do: bfloat16, which comes as its bits, becomes float32."""
    if "bfloat16" not in attrs.get("types", ())[:1]:
        return data
    return (data.astype(np.uint32) << 16).view(np.float32)


@host_function("com.microsoft.Unique")
def unique_in_order(attrs: Attrs, data: np.ndarray) -> tuple[np.ndarray, ...]:
    """Distinct elements of [n] in order of appearance; the inverse; the counts."""
    values, _, inverse, counts = unique({**attrs, "sorted": 0}, data)
    return values, inverse, counts


def _unique_by_key(slices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What NumPy's unique does, for strings, which it cannot compare slice by slice."""
    keys = [tuple(row.reshape(-1)) for row in slices[:, None]]
    first: dict[tuple[str, ...], int] = {}
    for index, key in enumerate(keys):
        first.setdefault(key, index)
    place = {key: rank for rank, key in enumerate(sorted(first))}
    inverse = np.array([place[key] for key in keys], np.int64)
    starts = np.array([first[key] for key in place], np.int64)
    return starts, inverse, np.bincount(inverse, minlength=len(place))
