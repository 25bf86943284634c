"""How elements of each IR type are stored: bfloat16 as uint16, int4 as one byte, and so on."""

from __future__ import annotations

import numpy as np

from ..contract import SMALL_INTEGERS, STORAGE
from .types import dtype, from_numpy_dtype


def storage_name(name: str) -> str:
    """The TVM dtype that holds elements of IR type ``name`` in memory."""
    return STORAGE.get(name, name)


def storage_bytes(name: str) -> int:
    """Bytes of one element in memory."""
    return max(1, dtype(storage_name(name)).bits // 8)


def storage_array(array: np.ndarray) -> np.ndarray:
    """A constant in its storage dtype; a view if it needs no conversion."""
    name = from_numpy_dtype(array.dtype).name
    if name in SMALL_INTEGERS:
        return array.astype(STORAGE[name])
    return array.view(STORAGE[name]) if name in STORAGE else array


__all__ = ["storage_array", "storage_bytes", "storage_name"]
