"""Encoders of ai.onnx.ml: LabelEncoder (to opset 4) and OneHotEncoder."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np

from . import Attrs, AttrsKey, host_function, tensor_attribute
from .strings import object_array

_DTYPES = {"strings": object, "int64s": np.int64, "floats": np.float32}
_DEFAULTS: dict[str, Any] = {"O": "_Unused", "i": -1, "u": -1, "f": -0.0}
_NAN = object()


@host_function("LabelEncoder")
def label_encoder(attrs: Attrs, data: np.ndarray) -> tuple[np.ndarray, ...]:
    """Looks each element up; one that is no key becomes the default. Any shape."""
    table, default, dtype = _table(AttrsKey(attrs))
    found = [table.get(_key(item), default) for item in data.reshape(-1).tolist()]
    if dtype.hasobject:
        return (object_array(found, data.shape),)
    return (np.array(found, dtype).reshape(data.shape),)


def _key(value: Any) -> Any:
    """All NaNs are one key."""
    return _NAN if isinstance(value, float) and math.isnan(value) else value


@lru_cache(maxsize=64)
def _table(node: AttrsKey) -> tuple[dict[Any, Any], Any, np.dtype[Any]]:
    """The table, the default and the dtype of the values. The last of equal keys counts."""
    keys, values = _column(node.attrs, "keys"), _column(node.attrs, "values")
    if len(keys) != len(values):
        raise ValueError(f"{len(keys)} keys and {len(values)} values")
    table: dict[Any, Any] = {}
    for key, value in zip(keys.tolist(), values.tolist(), strict=True):
        table[_key(key)] = value
    return table, _default(node.attrs, values), values.dtype


def _column(attrs: Attrs, name: str) -> np.ndarray:
    if attrs.get(f"{name}_tensor") is not None:
        return tensor_attribute(attrs[f"{name}_tensor"]).reshape(-1)
    for suffix, dtype in _DTYPES.items():
        entries = attrs.get(f"{name}_{suffix}")
        if entries is not None:
            return np.array(entries, dtype)
    raise ValueError(f"no attribute {name}_*")


def _default(attrs: Attrs, values: np.ndarray) -> Any:
    if attrs.get("default_tensor") is not None:
        return tensor_attribute(attrs["default_tensor"]).reshape(-1).tolist()[0]
    for suffix, dtype in _DTYPES.items():
        stated = attrs.get(f"default_{suffix[:-1]}")
        if stated is not None and values.dtype == dtype:
            return stated
    return _DEFAULTS[values.dtype.kind]


@host_function("OneHotEncoder")
def one_hot_encoder(attrs: Attrs, data: np.ndarray) -> tuple[np.ndarray, ...]:
    """float32, with a row for each element: 1 at its category, the last of equal ones, else 0.

    Numbers are cut to integers. Raises ValueError for an element of no category, unless the
    attribute ``zeros`` is set.
    """
    strings = data.dtype.hasobject
    places = _places(AttrsKey(attrs), strings)
    elements = (data if strings else data.astype(np.int64)).reshape(-1).tolist()
    result = np.zeros((len(elements), len(attrs["cats_strings" if strings else "cats_int64s"])),
                      np.float32)  # fmt: skip
    for row, element in enumerate(elements):
        place = places.get(element)
        if place is not None:
            result[row, place] = 1
        elif not attrs.get("zeros", 1):
            raise ValueError(f"{element!r} is in no category")
    return (result.reshape(*data.shape, result.shape[1]),)


@lru_cache(maxsize=64)
def _places(node: AttrsKey, strings: bool) -> dict[Any, int]:
    categories = node.attrs["cats_strings" if strings else "cats_int64s"]
    return {category: i for i, category in enumerate(categories)}
