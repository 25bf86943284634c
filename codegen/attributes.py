"""Attributes of host functions as JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ..ir.types import DType, OptionalType, SequenceType, TensorType, from_numpy_dtype


def attributes_json(attributes: Any) -> str:
    """A mapping of attributes as JSON text with sorted keys.

    Arrays become ``{"dtype", "shape", "data"}`` with the data flat; types become their text.
    """
    return json.dumps(_plain(attributes), sort_keys=True)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, np.ndarray):
        flat = value.reshape(-1)
        data = flat.tolist() if value.dtype.kind in "biufO" else flat.astype(np.float32).tolist()
        dtype = from_numpy_dtype(value.dtype).name
        return {"dtype": dtype, "shape": list(value.shape), "data": data}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, DType | TensorType | SequenceType | OptionalType):
        return str(value)
    return value
