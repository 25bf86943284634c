"""Operations that move or compare elements, for tensors of strings.

Compiled code cannot hold strings, so what it does for numbers is done here by NumPy, to ONNX's
rules at opset 23. The functions take numbers as well.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import Attrs, host_function, tensor_attribute

Arrays = tuple[np.ndarray, ...]


@host_function("Constant")
def constant(attrs: Attrs) -> Arrays:
    """A constant of the model: the attribute ``value``."""
    return (tensor_attribute(attrs["value"]),)


@host_function("Identity")
def identity(attrs: Attrs, data: np.ndarray) -> Arrays:
    """The input."""
    return (data,)


@host_function("Equal")
def equal(attrs: Attrs, left: np.ndarray, right: np.ndarray) -> Arrays:
    """Bool, with broadcasting."""
    return (np.asarray(left == right, bool),)


@host_function("Where")
def where(attrs: Attrs, condition: np.ndarray, left: np.ndarray, right: np.ndarray) -> Arrays:
    """One or the other, with broadcasting."""
    return (np.where(condition, left, right),)


@host_function("Shape")
def shape(attrs: Attrs, data: np.ndarray) -> Arrays:
    """The dimensions from ``start`` to ``end``, int64."""
    dims = data.shape[attrs.get("start", 0) : attrs.get("end")]
    return (np.array(dims, np.int64),)


@host_function("Extent")
def extent(attrs: Attrs, data: np.ndarray) -> Arrays:
    """Bytes of the same shape, from which compiled code learns the sizes of strings."""
    return (np.zeros(data.shape, np.uint8),)


@host_function("Size")
def size(attrs: Attrs, data: np.ndarray) -> Arrays:
    """The number of elements, an int64 scalar."""
    return (np.array(data.size, np.int64),)


@host_function("Reshape")
def reshape(attrs: Attrs, data: np.ndarray, target: np.ndarray) -> Arrays:
    """0 keeps a dimension unless ``allowzero`` is set, -1 is inferred."""
    dims = target.tolist()
    if not attrs.get("allowzero", 0):
        dims = [data.shape[i] if dim == 0 else dim for i, dim in enumerate(dims)]
    return (data.reshape(dims),)


@host_function("kiln.Reshape")
def reshape_exactly(attrs: Attrs, data: np.ndarray, shape: np.ndarray) -> Arrays:
    """The elements in another shape."""
    return (data.reshape(shape.tolist()),)


@host_function("Flatten")
def flatten(attrs: Attrs, data: np.ndarray) -> Arrays:
    """A matrix, split before ``axis``."""
    axis = attrs.get("axis", 1)
    axis += data.ndim if axis < 0 else 0
    rows = int(np.prod(data.shape[:axis], dtype=np.int64))
    columns = int(np.prod(data.shape[axis:], dtype=np.int64))
    return (data.reshape(rows, columns),)


@host_function("Squeeze")
def squeeze(attrs: Attrs, data: np.ndarray, axes: np.ndarray | None = None) -> Arrays:
    """Drops dimensions of size 1: the given ones, or all."""
    return (data.squeeze(None if axes is None else tuple(axes.tolist())),)


@host_function("Unsqueeze")
def unsqueeze(attrs: Attrs, data: np.ndarray, axes: np.ndarray) -> Arrays:
    """Adds dimensions of size 1 at the given places of the result."""
    return (np.expand_dims(data, tuple(axes.reshape(-1).tolist())),)


@host_function("Transpose")
def transpose(attrs: Attrs, data: np.ndarray) -> Arrays:
    """Permutes dimensions, by default reverses them."""
    return (np.transpose(data, attrs.get("perm")),)


@host_function("Expand")
def expand(attrs: Attrs, data: np.ndarray, target: np.ndarray) -> Arrays:
    """Broadcasts in both directions."""
    dims = np.broadcast_shapes(data.shape, tuple(target.tolist()))
    return (np.broadcast_to(data, dims).copy(),)


@host_function("kiln.Expand")
def expand_exactly(attrs: Attrs, data: np.ndarray, shape: np.ndarray) -> Arrays:
    """The input broadcast to just this shape."""
    return (np.broadcast_to(data, shape.tolist()).copy(),)


@host_function("Tile")
def tile(attrs: Attrs, data: np.ndarray, repeats: np.ndarray) -> Arrays:
    """Repeats the tensor along each dimension."""
    return (np.tile(data, repeats.tolist()),)


@host_function("Concat")
def concat(attrs: Attrs, *values: np.ndarray) -> Arrays:
    """Joins along ``axis``."""
    return (np.concatenate(values, axis=attrs["axis"]),)


@host_function("Split")
def split(attrs: Attrs, data: np.ndarray, sizes: np.ndarray | None = None) -> Arrays:
    """Slices along ``axis`` of the given sizes, or ``results`` equal ones, the last smaller."""
    axis = attrs.get("axis", 0)
    if sizes is None:
        chunk = -(-data.shape[axis] // attrs["results"])
        borders = [chunk * i for i in range(1, attrs["results"])]
    else:
        borders = np.cumsum(sizes)[:-1].tolist()
    return tuple(np.split(data, borders, axis))


@host_function("Slice")
def slice_(
    attrs: Attrs,
    data: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    axes: np.ndarray | None = None,
    steps: np.ndarray | None = None,
) -> Arrays:
    """Python's slices, whose ends are cut to the tensor; a negative step runs backwards."""
    picks = [slice(None)] * data.ndim
    for i, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        axis = i if axes is None else int(axes[i])
        step = 1 if steps is None else int(steps[i])
        picks[axis] = _slice(start, end, step, data.shape[axis])
    return (data[tuple(picks)],)


@host_function("kiln.Slice")
def slice_exactly(
    attrs: Attrs, data: np.ndarray, starts: np.ndarray, steps: np.ndarray, shape: np.ndarray
) -> Arrays:
    """Along each axis, as many elements as ``shape`` says, from ``starts`` on; all in bounds."""
    picks = [
        start + step * np.arange(extent)
        for start, step, extent in zip(starts, steps, shape, strict=True)
    ]
    return (data[np.ix_(*picks)] if picks else data,)


def _slice(start: int, end: int, step: int, dim: int) -> slice:
    """An end that lies before the first element is None to Python, -1 would be the last."""
    start = start + dim if start < 0 else start
    end = end + dim if end < 0 else end
    if step > 0:
        return slice(min(max(start, 0), dim), min(max(end, 0), dim), step)
    start, end = min(max(start, 0), dim - 1), min(max(end, -1), dim - 1)
    return slice(start, None if end < 0 else end, step)


@host_function("Gather")
def gather(attrs: Attrs, data: np.ndarray, indices: np.ndarray) -> Arrays:
    """Slices along ``axis`` by index; negative indices count from the end."""
    return (np.take(data, indices, axis=attrs.get("axis", 0)),)


@host_function("GatherElements")
def gather_elements(attrs: Attrs, data: np.ndarray, indices: np.ndarray) -> Arrays:
    """Elements by their index along ``axis``."""
    return (data[_grid(indices, data, attrs.get("axis", 0))],)


@host_function("GatherND")
def gather_nd(attrs: Attrs, data: np.ndarray, indices: np.ndarray) -> Arrays:
    """Slices by index tuples, the last dimension of ``indices``."""
    batch = attrs.get("batch_dims", 0)
    picks: list[np.ndarray] = list(np.indices(indices.shape[:-1], sparse=True)[:batch])
    picks.extend(np.moveaxis(indices, -1, 0))
    return (data[tuple(picks)],)


@host_function("ScatterElements")
def scatter_elements(
    attrs: Attrs, data: np.ndarray, indices: np.ndarray, updates: np.ndarray
) -> Arrays:
    """A copy with elements replaced by their index along ``axis``."""
    _plain_scatter(attrs)
    result = data.copy()
    result[_grid(indices, data, attrs.get("axis", 0))] = updates
    return (result,)


@host_function("ScatterND")
def scatter_nd(attrs: Attrs, data: np.ndarray, indices: np.ndarray, updates: np.ndarray) -> Arrays:
    """A copy with slices replaced by index tuples."""
    _plain_scatter(attrs)
    result = data.copy()
    result[tuple(np.moveaxis(indices, -1, 0))] = updates
    return (result,)


def _plain_scatter(attrs: Attrs) -> None:
    if attrs.get("reduction", "none") != "none":
        raise ValueError(f"reduction {attrs['reduction']!r} is not defined for strings")


def _grid(indices: np.ndarray, data: np.ndarray, axis: int) -> tuple[Any, ...]:
    picks: list[Any] = list(np.indices(indices.shape, sparse=True))
    picks[axis] = np.where(indices < 0, indices + data.shape[axis], indices)
    return tuple(picks)


@host_function("Compress")
def compress(attrs: Attrs, data: np.ndarray, condition: np.ndarray) -> Arrays:
    """Slices along ``axis``, or elements, for which the condition is true.

    A condition may be shorter than the axis; what it has beyond it is ignored.
    """
    axis = attrs.get("axis")
    extent = data.size if axis is None else data.shape[axis]
    return (np.compress(condition[:extent], data, axis=axis),)


@host_function("Pad")
def pad(
    attrs: Attrs,
    data: np.ndarray,
    pads: np.ndarray,
    value: np.ndarray | None = None,
    axes: np.ndarray | None = None,
) -> Arrays:
    """Adds to, or with negative sizes cuts from, both ends of each dimension."""
    mode = attrs.get("mode", "constant")
    places = range(data.ndim) if axes is None else axes.tolist()
    widths = [(0, 0)] * data.ndim
    for i, axis in enumerate(places):
        widths[axis] = (int(pads[i]), int(pads[i + len(places)]))
    cut = tuple(
        slice(max(-low, 0), dim - max(-high, 0))
        for (low, high), dim in zip(widths, data.shape, strict=True)
    )
    grown = [(max(low, 0), max(high, 0)) for low, high in widths]
    if mode != "constant":
        return (np.pad(data[cut], grown, mode=mode),)
    default = "" if data.dtype == object else 0
    fill = default if value is None else value.reshape(-1)[0]
    return (np.pad(data[cut], grown, constant_values=fill),)
