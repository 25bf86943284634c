"""Cast to and from strings (ONNX, to opset 23); all other casts are compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..dtypes import STORAGE, STRING, from_storage, is_exotic, public_dtype, to_storage
from . import Attrs, host_function
from .strings import object_array

_TRUTH = {"true": True, "false": False}


@host_function("Cast")
def cast(attrs: Attrs, data: np.ndarray) -> tuple[np.ndarray, ...]:
    """Converts to ``to``; an input in an exotic dtype needs ``from``, because its bits hide it.

    Floats print as the shortest text that reads back. Text to integer takes floating notation and
    drops the fraction.
    """
    target = attrs["to"]
    if data.dtype != object:
        return (_to_text(data, attrs.get("from")),)
    if target == STRING:
        return (data,)
    convert = _reader(target)
    values = [convert(text) for text in data.flat]
    return (_from_numbers(values, target).reshape(data.shape),)


@host_function("CastLike")
def cast_like(attrs: Attrs, data: np.ndarray, like: Any) -> tuple[np.ndarray, ...]:
    """`cast`, where ``to`` says the dtype of the second input."""
    return cast(attrs, data)


def _to_text(data: np.ndarray, source: str | None) -> np.ndarray:
    if source is not None and is_exotic(source):
        data = from_storage(data, source).astype(np.float32 if "float" in source else np.int64)
    # One by one, because NumPy's own conversion of an array pads to one width.
    return object_array([str(item) for item in data.reshape(-1)], data.shape)


def _reader(target: str) -> Callable[[str], Any]:
    if "float" in target:
        return _float
    return _bool if target == "bool" else _int


def _float(text: str) -> float:
    if "_" in text:
        raise ValueError(f"{text!r} is not a number")
    return float(text)


def _int(text: str) -> int:
    try:
        return int(text) if "_" not in text else int(_float(text))
    except ValueError:
        return int(_float(text))


def _bool(text: str) -> bool:
    word = text.strip().lower()
    return _TRUTH[word] if word in _TRUTH else _float(text) != 0


def _from_numbers(values: list[Any], target: str) -> np.ndarray:
    """Integers out of range wrap around; floats out of range become infinite."""
    wide = np.array(values, np.float64 if "float" in target else np.int64)
    with np.errstate(over="ignore", invalid="ignore"):
        if is_exotic(target):
            return to_storage(wide.astype(public_dtype(target)), target)
        return wide.astype(STORAGE[target])
