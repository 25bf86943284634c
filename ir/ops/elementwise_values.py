"""Compile-time values of element-wise ops: NumPy on plain arrays, dims on symbolic ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

import numpy as np

from ..dims import (
    Dim,
    dim_max,
    dim_min,
    known_equal,
    known_le,
    known_positive,
    lower_bound,
    upper_bound,
)
from ..registry import InferContext, Propagate
from ..types import DType, TensorType, to_numpy_dtype

Array: TypeAlias = np.ndarray
Arrays: TypeAlias = "list[np.ndarray | None]"


class _NotProved(Exception):
    """A symbolic operation has no result that is right for all values of the symbols."""


def elementwise_value(
    plain: Callable[..., Array], symbolic: Callable[..., Any] | None = None
) -> Propagate:
    """A propagate rule: ``plain`` on NumPy arrays, ``symbolic`` on entries that are dims.

    The result is not known if an input is not, or if ``symbolic`` has no answer.
    """

    def rule(ctx: InferContext, arrays: Arrays) -> Arrays | None:
        t = ctx.results[0]
        if not isinstance(t, TensorType) or t.dtype.kind == "s":
            return None
        known = [a for a in arrays if a is not None]
        if len(known) != len(arrays):
            return None
        if all(a.dtype != object for a in known):
            return [_plain(plain, known, t)]
        if symbolic is None or t.dtype.is_float:
            return None
        try:
            found = _object_array(np.frompyfunc(symbolic, len(known), 1)(*known))
            wraps = t.dtype.is_integer and any(_wraps(_dim(d), t.dtype) for d in found.flat)
            return None if wraps else [found]
        except _NotProved:
            return None

    return rule


def _wraps(entry: Dim, dtype: DType) -> bool:
    """May a value not fit an integer type? Symbols are assumed to fit the signed ones."""
    if dtype.bits < 32:
        return True
    if isinstance(entry, int):
        limits = np.iinfo(to_numpy_dtype(dtype))
        return not limits.min <= entry <= limits.max
    low = lower_bound(entry)
    return dtype.kind == "u" and (low is None or low < 0)


def _plain(function: Callable[..., Array], arrays: list[Array], t: TensorType) -> Array | None:
    with np.errstate(all="ignore"):
        try:
            return np.asarray(function(*arrays)).astype(to_numpy_dtype(t.dtype))
        except (ValueError, TypeError, ZeroDivisionError):
            return None


def _object_array(value: Any) -> Array:
    if isinstance(value, np.ndarray):
        return value
    out = np.empty((), dtype=object)
    out[()] = value
    return out


def _dim(value: Any) -> Dim:
    return int(value) if isinstance(value, int | np.integer) else cast(Dim, value)


# ---- NumPy where ONNX differs from it ------------------------------------------------------------


def divide(a: Array, b: Array) -> Any:
    """Division that truncates integers towards zero; raises for an integer divisor of 0."""
    if a.dtype.kind not in "iu":
        return np.divide(a, b)
    if not np.all(b):
        raise ZeroDivisionError
    return np.where((a < 0) != (b < 0), -(np.abs(a) // np.abs(b)), np.abs(a) // np.abs(b))


def modulo(a: Array, b: Array) -> Any:
    """The remainder with the divisor's sign; raises for an integer divisor of 0."""
    if a.dtype.kind in "iu" and not np.all(b):
        raise ZeroDivisionError
    return np.mod(a, b)


def mean(*arrays: Array) -> Any:
    return sum(arrays[1:], arrays[0]) / np.asarray(len(arrays), arrays[0].dtype)


def fold(function: Callable[[Any, Any], Any]) -> Callable[..., Any]:
    """A variadic function of a binary one."""

    def apply(*values: Any) -> Any:
        result = values[0]
        for v in values[1:]:
            result = function(result, v)
        return result

    return apply


# ---- dims ----------------------------------------------------------------------------------------


def dim_divide(a: Any, b: Any) -> Any:
    """Truncating division, which is ``//`` where the dividend cannot be negative."""
    a, b = _dim(a), _dim(b)
    low = lower_bound(a)
    if low is None or low < 0 or not known_positive(b):
        raise _NotProved
    return a // b


def dim_modulo(a: Any, b: Any) -> Any:
    a, b = _dim(a), _dim(b)
    if not known_positive(b):
        raise _NotProved
    return a % b


def dim_maximum(*values: Any) -> Any:
    return fold(dim_max)(*(_dim(v) for v in values))


def dim_minimum(*values: Any) -> Any:
    return fold(dim_min)(*(_dim(v) for v in values))


def dim_equal(a: Any, b: Any) -> bool:
    a, b = _dim(a), _dim(b)
    if known_equal(a, b):
        return True
    low, high = lower_bound(a - b), upper_bound(a - b)
    if (low is not None and low > 0) or (high is not None and high < 0):
        return False
    raise _NotProved


def dim_less(a: Any, b: Any) -> bool:
    a, b = _dim(a), _dim(b)
    if known_le(a + 1, b):
        return True
    if known_le(b, a):
        return False
    raise _NotProved


def dim_where(condition: Any, a: Any, b: Any) -> Any:
    a, b = _dim(a), _dim(b)
    if isinstance(condition, int | np.integer | np.bool_):
        return a if condition else b
    raise _NotProved


def dim_abs(a: Any) -> Dim:
    low = lower_bound(_dim(a))
    if low is None or low < 0:
        raise _NotProved
    return _dim(a)


def dim_sign(a: Any) -> int:
    if known_positive(_dim(a)):
        return 1
    raise _NotProved


def dim_to_bool(a: Any) -> bool:
    return not dim_equal(a, 0)
