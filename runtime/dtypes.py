"""Element types: how each is stored in memory, what users see, what onnxruntime calls it.

Types that NumPy lacks are stored one value an element: bfloat16 as uint16 bits, every float8 and
float4 as its uint8 code, int4 and int2 as int8, uint4 and uint2 as uint8. Users see them as
``ml_dtypes`` arrays, and ``ml_dtypes`` is imported only where such a type occurs.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..contract import ML_DTYPES, SMALL_INTEGERS
from ..contract import STORAGE as STORED_AS
from .errors import InputError

STRING = "string"

_NATIVE = (
    "float16", "float32", "float64", "int8", "int16", "int32", "int64",
    "uint8", "uint16", "uint32", "uint64", "bool", "complex64", "complex128",
)  # fmt: skip

_PLAIN = frozenset(_NATIVE)

STORAGE: dict[str, np.dtype[Any]] = {
    **{name: np.dtype(name) for name in _NATIVE},
    **{name: np.dtype(storage) for name, storage in STORED_AS.items()},
}

_ORT_NAMES = {"float32": "float", "float64": "double"}

# Where the constructors stand; a name here is a valid element type of a manifest.
KNOWN = frozenset(STORAGE) | {STRING}


def is_plain(dtype: str) -> bool:
    """True for the types whose arrays users see as they are stored."""
    return dtype in _PLAIN


def is_exotic(dtype: str) -> bool:
    """True for the types that users see as ``ml_dtypes`` arrays."""
    return dtype in ML_DTYPES


def ort_name(dtype: str) -> str:
    """onnxruntime's name for an element type: ``float`` for ``float32``."""
    return _ORT_NAMES.get(dtype, dtype)


def public_dtype(dtype: str) -> np.dtype[Any]:
    """The dtype of the arrays users see; ``object`` for strings.

    Raises InputError where it needs ``ml_dtypes`` and that is not installed.
    """
    if dtype == STRING:
        return np.dtype(object)
    if dtype not in ML_DTYPES:
        return STORAGE[dtype]
    try:
        import ml_dtypes
    except ImportError:
        raise InputError(f"tensors of {dtype} need the package ml_dtypes: install it") from None
    scalar = getattr(ml_dtypes, ML_DTYPES[dtype], None)
    if scalar is None:
        raise InputError(f"tensors of {dtype} need a newer ml_dtypes: upgrade it")
    found: np.dtype[Any] = np.dtype(scalar)
    return found


def to_storage(array: np.ndarray, dtype: str) -> np.ndarray:
    """An array of ``public_dtype(dtype)`` as its storage; same shape, a view where possible."""
    if dtype in SMALL_INTEGERS:
        return array.astype(STORAGE[dtype])
    return array.view(STORAGE[dtype]) if dtype in ML_DTYPES else array


def from_storage(array: np.ndarray, dtype: str) -> np.ndarray:
    """The inverse of `to_storage`."""
    if dtype in SMALL_INTEGERS:
        return array.astype(public_dtype(dtype))
    return array.view(public_dtype(dtype)) if dtype in ML_DTYPES else array
