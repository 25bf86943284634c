"""Encoders of categories: LabelEncoder between numbers, CategoryMapper, OneHotEncoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ir.graph import Value
from ...ir.types import to_numpy_dtype
from ..emit import Emit
from ..errors import ImportFault
from ..node import OnnxNode
from .common import convert, integers

_KINDS = {"strings": object, "int64s": np.int64, "floats": np.float32}


def label_encoder(node: OnnxNode, emit: Emit) -> Sequence[Value] | None:
    """LabelEncoder between numbers as a ``kiln.Lookup``; None for strings.

    Of equal keys the last counts, and all NaNs are one key.
    """
    keys, values = _column(node, "keys"), _column(node, "values")
    if keys.size != values.size:
        raise ImportFault(f"has {keys.size} keys and {values.size} values")
    if keys.dtype == object or values.dtype == object:
        return None
    x = node.required(0)
    if to_numpy_dtype(x.dtype) != keys.dtype:
        raise ImportFault(f"its keys are {keys.dtype}, its input is {x.dtype}")
    default = emit.constant(_default(node, values.dtype), "default")
    unknown = keys != keys
    found = _lookup(x, keys[~unknown], values[~unknown], default, emit)
    if unknown.any():
        of_nan = emit.constant(values[unknown][-1].reshape(()), "of_nan")
        found = emit("Where", emit("IsNaN", x), of_nan, found)
    return [found]


def _lookup(x: Value, keys: np.ndarray, values: np.ndarray, default: Value, emit: Emit) -> Value:
    last = keys.size - 1
    ordered, first = np.unique(keys[::-1], return_index=True)
    if not ordered.size:
        return emit("Expand", default, emit("Shape", x))
    table = emit.constant(ordered, "keys"), emit.constant(values[last - first], "values")
    return emit("kiln.Lookup", x, *table, default)


def _column(node: OnnxNode, name: str) -> np.ndarray:
    given: Any = node.attrs.get(f"{name}_tensor")
    if isinstance(given, np.ndarray):
        return given.reshape(-1)
    for suffix, dtype in _KINDS.items():
        entries: Any = node.attrs.get(f"{name}_{suffix}")
        if entries:
            return np.array(entries, dtype)
    raise ImportFault(f"has no {name}")


def _default(node: OnnxNode, dtype: Any) -> np.ndarray:
    given: Any = node.attrs.get("default_tensor")
    if isinstance(given, np.ndarray):
        if given.dtype != dtype or given.size != 1:
            raise ImportFault(f"the default is {given.dtype}, the values are {dtype}")
        return given.reshape(())
    name = {"int64": "default_int64", "float32": "default_float"}.get(np.dtype(dtype).name)
    stated: Any = None if name is None else node.attrs.get(name)
    fallback = -0.0 if np.dtype(dtype).kind == "f" else -1
    return np.array(fallback if stated is None else stated, dtype)


def category_mapper(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """Strings to integers or back, as a LabelEncoder."""
    strings, ints = node.attrs.get("cats_strings", ()), node.attrs.get("cats_int64s", ())
    attrs: dict[str, Any]
    if node.required(0).dtype == "string":
        attrs = {"keys_strings": strings, "values_int64s": ints}
        attrs["default_int64"] = node.attrs.get("default_int64", -1)
    else:
        attrs = {"keys_int64s": ints, "values_strings": strings}
        attrs["default_string"] = node.attrs.get("default_string", "_Unused")
    return [emit("ai.onnx.ml.LabelEncoder", node.required(0), **attrs)]


def one_hot_encoder(node: OnnxNode, emit: Emit) -> Sequence[Value] | None:
    """For each element a row of zeros, float32, with a one at the index of its category.

    None if a host function is needed: for strings, and if an element of no category must be an
    error.
    """
    x = node.required(0)
    categories = integers(node, "cats_int64s")
    if x.dtype == "string" or not node.attrs.get("zeros", 1):
        return None
    if not categories.size:
        raise ImportFault(f"has no categories for elements of type {x.dtype}")
    column = emit("Unsqueeze", convert(x, "int64", emit), emit.ints([-1]))
    found = emit("Equal", column, emit.constant(categories, "categories"))
    _, from_end = np.unique(categories[::-1], return_index=True)
    if from_end.size < categories.size:  # the last of equal categories counts
        counts = np.zeros(categories.size, bool)
        counts[categories.size - 1 - from_end] = True
        found = emit("And", found, emit.constant(counts, "counts"))
    return [convert(found, "float32", emit)]
