"""Reference evaluation of gathers and scatters by NumPy's indexing.

``onnx.reference`` loops over every index in Python, and its GatherElements is limited to the number
of arrays that ``numpy.choose`` takes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..graph import Node
from ..shapes import normalize_axis

Array = np.ndarray


def gather_elements(node: Node, inputs: list[Array]) -> list[Array]:
    """``GatherElements``; raises ``IndexError`` for an index out of range."""
    data, indices = inputs
    axis = normalize_axis(_int(node, "axis", 0), data.ndim)
    return [data[_along(indices, axis)]]


def gather_nd(node: Node, inputs: list[Array]) -> list[Array]:
    """``GatherND`` with its batch dims; raises ``IndexError`` for an index out of range."""
    data, indices = inputs
    batch = _int(node, "batch_dims", 0)
    lead = np.ogrid[tuple(slice(0, n) for n in indices.shape[:batch])] if batch else []
    padded = [g.reshape(g.shape + (1,) * (indices.ndim - 1 - batch)) for g in lead]
    return [data[(*padded, *np.moveaxis(indices, -1, 0))]]


def scatter_elements(node: Node, inputs: list[Array]) -> list[Array]:
    """``ScatterElements``; of duplicates without a reduction the last one stays."""
    data, indices, updates = inputs
    axis = normalize_axis(_int(node, "axis", 0), data.ndim)
    return [_scattered(node, data, _along(indices, axis), updates)]


def scatter_nd(node: Node, inputs: list[Array]) -> list[Array]:
    """``ScatterND``; of duplicates without a reduction the last one stays."""
    data, indices, updates = inputs
    return [_scattered(node, data, tuple(np.moveaxis(indices, -1, 0)), updates)]


def _int(node: Node, name: str, default: int) -> int:
    value = node.attrs.get(name, default)
    assert isinstance(value, int)
    return value


def _along(indices: Array, axis: int) -> tuple[Array, ...]:
    """A full index for every element of ``indices``, which are indices along ``axis``."""
    grid: list[Any] = list(np.ogrid[tuple(slice(0, n) for n in indices.shape)])
    grid[axis] = indices
    return tuple(grid)


_COMBINE: dict[str, Callable[[Any, Any], Any]] = {
    "add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum,
}  # fmt: skip


def _scattered(node: Node, data: Array, where: tuple[Array, ...], updates: Array) -> Array:
    out = data.copy()
    reduction = str(node.attrs.get("reduction", "none"))
    if reduction == "none":
        out[where] = updates
        return out
    # One after the other, since an array assignment would count duplicates once.
    shape = np.broadcast_shapes(*(np.shape(w) for w in where))
    full = [np.broadcast_to(w, shape).reshape(-1) for w in where]
    values = updates.reshape(len(full[0]), *updates.shape[len(shape) :])
    combine = _COMBINE[reduction]
    for k in range(len(full[0])):
        at = tuple(w[k] for w in full)
        out[at] = combine(out[at], values[k])
    return out


def one_hot(node: Node, inputs: list[Any]) -> list[Any]:
    """``OneHot``: values[1] at the index, else values[0]; indices out of range set nothing."""
    indices, depth, values = inputs
    count = int(depth.reshape(-1)[0])
    axis = normalize_axis(_int(node, "axis", -1), indices.ndim + 1)
    places = np.expand_dims(np.trunc(indices) if indices.dtype.kind == "f" else indices, axis)
    shape = [1] * places.ndim
    shape[axis] = count
    steps = np.arange(count, dtype=np.int64).reshape(shape)
    hot = (places == steps) | (places == steps - count)
    return [np.where(hot, values[1], values[0]).astype(values.dtype)]
