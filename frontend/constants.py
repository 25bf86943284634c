"""The forms in which a ``Constant`` node may hold its value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .errors import ImportFault
from .node import OnnxNode


def _strings(values: Any) -> np.ndarray:
    return np.array(values, object)


_FORMS: dict[str, Callable[[Any], np.ndarray]] = {
    "value": np.asarray,
    "sparse_value": np.asarray,
    "value_float": lambda v: np.array(v, np.float32),
    "value_floats": lambda v: np.array(v, np.float32),
    "value_int": lambda v: np.array(v, np.int64),
    "value_ints": lambda v: np.array(v, np.int64),
    "value_string": _strings,
    "value_strings": _strings,
}


def constant_array(node: OnnxNode) -> np.ndarray:
    """The array of a ``Constant`` node; raises :class:`ImportFault` unless it has one value."""
    forms = [k for k in node.attrs if k in _FORMS]
    if len(forms) != 1 or len(node.outputs) != 1:
        raise ImportFault(f"a constant needs one value and one output, not {len(forms)} values")
    return _FORMS[forms[0]](node.attrs[forms[0]])
