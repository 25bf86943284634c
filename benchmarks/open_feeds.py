"""Models with every dim open, and feeds of many sizes and values for them."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import onnx

EXTREMES = (2**62, -(2**62), -1, 0, 2**31 - 1)
EXTREME_FLOATS = (0.0, -1.0, 1e30, float("inf"), float("nan"))

Values = list[Any]


def opened(model: onnx.ModelProto, named: bool) -> onnx.ModelProto:
    """A copy in which every dim of the inputs is open, and no other value has a shape.

    ``named`` gives each axis a name of its own; else none has one.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    graph = copy.graph
    for i, value in enumerate(_fed(copy)):
        tensor = _tensor_type(value.type)
        for axis, dim in enumerate(tensor.shape.dim if tensor is not None else ()):
            dim.Clear()
            if named:
                dim.dim_param = f"d{i}_{axis}"
    del graph.value_info[:]
    for value in graph.output:
        tensor = _tensor_type(value.type)
        if tensor is not None:
            tensor.ClearField("shape")
    return copy


def without_shapes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose inputs may have any rank."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for value in _fed(copy):
        tensor = _tensor_type(value.type)
        if tensor is not None:
            tensor.ClearField("shape")
    return copy


def input_names(model: onnx.ModelProto) -> list[str]:
    """The names of what must be fed, in order."""
    return [i.name for i in _fed(model)]


def _fed(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    given = {t.name for t in model.graph.initializer}
    return [i for i in model.graph.input if i.name not in given]


def _tensor_type(t: onnx.TypeProto) -> onnx.TypeProto.Tensor | None:
    """The type of a tensor, or of what a sequence or an optional holds."""
    while not t.HasField("tensor_type"):
        if t.HasField("sequence_type"):
            t = t.sequence_type.elem_type
        elif t.HasField("optional_type"):
            t = t.optional_type.elem_type
        else:
            return None
    return t.tensor_type


@dataclass(frozen=True)
class Feed:
    """One set of inputs; ``how`` says in a word in what it is unlike the suite's own."""

    how: str
    values: Values


def feeds(base: Values, name: str, seed: int, count: int) -> Iterator[Feed]:
    """``count`` feeds after the ``base`` of a case of this name; the first one is the base."""
    yield Feed("same", base)
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    kinds = tuple(_KINDS)
    for n in range(1, count):
        how = kinds[n % len(kinds)]
        yield Feed(how, _KINDS[how](base, rng))


def _other_values(base: Values, rng: np.random.Generator) -> Values:
    return [_resized(v, {}, rng) for v in base]


def _consistent(base: Values, rng: np.random.Generator) -> Values:
    """Each size that occurs becomes another, wherever it stands: such feeds often fit."""
    return [_resized(v, _mapping(base, rng), rng) for v in base]


def _mapping(base: Values, rng: np.random.Generator) -> dict[int, int]:
    sizes = sorted({d for array in _arrays(base) for d in array.shape})
    return {d: _size(d, rng) if rng.random() < 0.6 else d for d in sizes}


def _one_axis(base: Values, rng: np.random.Generator) -> Values:
    """One axis of one input has another size; values stay where they can."""
    out = [_plain(v) for v in base]
    places = [(i, axis) for i, v in enumerate(out) if isinstance(v, np.ndarray)
              for axis in range(v.ndim)]  # fmt: skip
    if not places:
        return _other_values(base, rng)
    i, axis = places[rng.integers(len(places))]
    shape = list(out[i].shape)
    shape[axis] = _size(shape[axis], rng)
    out[i] = _tiled(out[i], tuple(shape))
    return out


def _misfit(base: Values, rng: np.random.Generator) -> Values:
    """Every axis may have any size."""

    def change(array: np.ndarray) -> np.ndarray:
        shape = tuple(_size(d, rng) if rng.random() < 0.4 else d for d in array.shape)
        return _filled(array, shape, rng)

    return [_mapped(v, change) for v in base]


def _extreme(base: Values, rng: np.random.Generator) -> Values:
    """One input of integers, or of few floats, has extreme values."""
    out = [_plain(v) for v in base]
    if rng.random() < 0.3:
        out = _consistent(out, rng)
    able = [i for i, v in enumerate(out) if isinstance(v, np.ndarray) and _steers(v)]
    if not able:
        return _misfit(base, rng)
    i = able[rng.integers(len(able))]
    array = out[i].copy()
    number = 1 if rng.random() < 0.6 else array.size
    for place in rng.choice(array.size, number, replace=False):
        array.reshape(-1)[place] = _extreme_value(array.dtype, rng)
    out[i] = array
    return out


def _steers(array: np.ndarray) -> bool:
    """Integers may be sizes, indices or axes; so may a few floats (scales, limits of a range)."""
    if array.dtype.kind in "iu":
        return array.size > 0
    return array.dtype in (np.float32, np.float64) and 0 < array.size <= 8


def _extreme_value(dtype: np.dtype[Any], rng: np.random.Generator) -> Any:
    if dtype.kind == "f":
        return EXTREME_FLOATS[rng.integers(len(EXTREME_FLOATS))]
    info = np.iinfo(dtype)
    return min(max(EXTREMES[rng.integers(len(EXTREMES))], int(info.min)), int(info.max))


_KINDS = {
    "values": _other_values, "resized": _consistent, "axis": _one_axis, "misfit": _misfit,
    "extreme": _extreme,
}  # fmt: skip


def _size(size: int, rng: np.random.Generator) -> int:
    choices = (0, 1, size, size + 1, max(size - 1, 0), 2 * size, 3 * size, 7)
    return int(choices[rng.integers(len(choices))])


def _arrays(values: Values) -> Iterator[np.ndarray]:
    for v in values:
        if isinstance(v, list):
            yield from _arrays(v)
        elif v is not None:
            yield np.asarray(v)


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, list) else np.asarray(value)


def _mapped(value: Any, change: Any) -> Any:
    if isinstance(value, list):
        return [_mapped(v, change) for v in value]
    return value if value is None else change(np.asarray(value))


def _resized(value: Any, sizes: Mapping[int, int], rng: np.random.Generator) -> Any:
    def change(array: np.ndarray) -> np.ndarray:
        return _filled(array, tuple(sizes.get(d, d) for d in array.shape), rng)

    return _mapped(value, change)


def _tiled(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """The array's own values over and over; zeros where it has none."""
    if array.size == 0:
        return np.full(shape, "", object) if array.dtype == object else np.zeros(shape, array.dtype)
    indices = np.arange(int(np.prod(shape))) % array.size
    return array.reshape(-1)[indices].reshape(shape)


def _filled(array: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Values of the array's kind: its own, or others near its range."""
    own = array.dtype.kind not in "biufcV" or rng.random() < 0.5
    if own and shape != array.shape:
        return _tiled(array, shape)
    if own:
        return array
    kind = array.dtype.kind
    if kind == "b":
        return np.asarray(rng.integers(0, 2, shape), bool)
    if kind in "iu":
        return _integers(array, shape, rng)
    drawn = rng.standard_normal(shape) * _magnitude(array)
    with np.errstate(all="ignore"):
        return np.asarray(drawn).astype(array.dtype)


def _integers(array: np.ndarray, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    info = np.iinfo(array.dtype)
    low = max(int(array.min(initial=0)) - 2, int(info.min))
    high = min(int(array.max(initial=1)) + 2, int(info.max))
    drawn = rng.integers(low, high, shape, np.int64 if high < 2**63 else np.uint64, endpoint=True)
    return np.asarray(drawn).astype(array.dtype)


def _magnitude(array: np.ndarray) -> float:
    if array.dtype.kind == "V" and not _is_small_float(array.dtype):
        return 3.0
    wide = np.abs(array.astype(np.complex128 if array.dtype.kind == "c" else np.float64))
    return float(wide.max(initial=0, where=np.isfinite(wide)) or 1.0)


def _is_small_float(dtype: np.dtype[Any]) -> bool:
    try:
        ml_dtypes.finfo(dtype)
    except (ValueError, TypeError):
        return False
    return True
