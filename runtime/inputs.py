"""Checks one feed and converts it to the form that the model takes.

Accepted are NumPy arrays of the declared dtype in any memory order, alignment or byte order;
lists, scalars and nested lists of Python numbers, whose type is then the input's; whatever
``numpy.asarray`` takes (a CPU tensor of another library) with the declared dtype. As in
onnxruntime, an array of another dtype is an error, never converted. Types NumPy lacks come as
``ml_dtypes`` arrays or, for bfloat16, float8 and float4, as their bits. Strings come as arrays or
lists of `str` or UTF-8 `bytes`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .dims import check_shape
from .dtypes import STORAGE, STRING, is_exotic, ort_name, public_dtype
from .errors import InputError
from .manifest import ValueSpec

_NUMBERS = (bool, int, float, complex)


def check_feed(value: Any, spec: ValueSpec) -> Any:
    """The feed as an array in public dtype, a list of such values, or None.

    Raises InputError for what does not fit ``spec``.
    """
    if spec.kind == "optional" and spec.elem is not None:
        return None if value is None else check_feed(value, _named(spec.elem, spec.name))
    if spec.kind == "sequence" and spec.elem is not None:
        if not isinstance(value, (list, tuple)):
            raise InputError(_wrong(spec, f"a {type(value).__name__}, not a list"))
        elem = _named(spec.elem, spec.name)
        return [check_feed(item, elem) for item in value]
    array = _strings(value, spec) if spec.dtype == STRING else _numbers(value, spec)
    check_shape(array.shape, spec)
    return array


def _named(elem: ValueSpec, name: str) -> ValueSpec:
    """``elem`` with the name of the input that it belongs to, for error messages."""
    return ValueSpec(name, elem.kind, elem.dtype, elem.shape, elem.optional, elem.elem)


def _numbers(value: Any, spec: ValueSpec) -> np.ndarray:
    array = _as_array(value, spec)
    wanted = public_dtype(spec.dtype)
    if array.dtype == wanted:
        return array
    native = array.dtype.newbyteorder("=")
    if native == wanted:
        return array.astype(wanted)
    if is_exotic(spec.dtype) and not spec.dtype.startswith(("int", "uint")):
        if array.dtype == STORAGE[spec.dtype]:
            return array.view(wanted)
    if not isinstance(value, np.ndarray) and isinstance(value, (list, tuple, *_NUMBERS)):
        if not _holds_arrays(value):
            return _from_python(value, array, wanted, spec)
    raise InputError(_wrong(spec, f"of type {_type_name(array.dtype)}"))


def _as_array(value: Any, spec: ValueSpec) -> np.ndarray:
    if value is None or isinstance(value, (str, bytes, dict, set)):
        raise InputError(_wrong(spec, f"a {type(value).__name__}, not an array"))
    try:
        array = np.asarray(value)
    except (ValueError, TypeError, RuntimeError, BufferError) as error:
        raise InputError(_wrong(spec, f"no array ({str(error).splitlines()[0]})")) from None
    if array.dtype == object and not (isinstance(value, list) and not value):
        raise InputError(_wrong(spec, f"a {type(value).__name__}, not an array of numbers"))
    return array


def _holds_arrays(value: Any) -> bool:
    """Do nested lists contain a NumPy array or scalar? Its dtype is not to be converted."""
    if isinstance(value, (list, tuple)):
        return any(_holds_arrays(item) for item in value)
    return isinstance(value, (np.ndarray, np.generic))


def _from_python(
    value: Any, array: np.ndarray, wanted: np.dtype[Any], spec: ValueSpec
) -> np.ndarray:
    """Convert Python's numbers, which have no fixed width, to the input's type.

    Raises InputError where that would lose digits of an integer or a fraction.
    """
    if array.size == 0:
        return np.empty(array.shape, wanted)
    ranks = "biufc"
    kind = wanted.kind if wanted.kind in ranks else ("f" if "float" in spec.dtype else "i")
    if ranks.index(array.dtype.kind) > ranks.index("i" if kind == "u" else kind):
        raise InputError(_wrong(spec, f"of type {_type_name(array.dtype)}"))
    try:
        converted = array.astype(wanted)
    except (OverflowError, TypeError, ValueError):
        raise InputError(_wrong(spec, f"{value!r:.60}, which does not fit")) from None
    if kind in "iu" and not np.array_equal(converted.astype(array.dtype), array):
        raise InputError(_wrong(spec, f"{value!r:.60}, which does not fit"))
    return converted


def _strings(value: Any, spec: ValueSpec) -> np.ndarray:
    if isinstance(value, (str, bytes)):
        array = np.array(value, object)
    elif isinstance(value, (np.ndarray, list, tuple)):
        array = _object_array(value, spec)
    else:
        raise InputError(_wrong(spec, f"a {type(value).__name__}, not an array of str"))
    result = np.empty(array.shape, object)
    result.reshape(-1)[:] = [_string(item, spec) for item in array.reshape(-1)]
    return result


def _object_array(value: Any, spec: ValueSpec) -> np.ndarray:
    try:
        return np.array(value, object)
    except ValueError:
        raise InputError(_wrong(spec, "a list of uneven length")) from None


def _string(item: Any, spec: ValueSpec) -> str:
    if isinstance(item, bytes):
        try:
            return item.decode()
        except UnicodeDecodeError:
            raise InputError(_wrong(spec, "bytes that are not UTF-8")) from None
    if not isinstance(item, str):
        raise InputError(_wrong(spec, f"an array that holds a {type(item).__name__}"))
    return str(item)


def _type_name(dtype: np.dtype[Any]) -> str:
    return f"tensor({ort_name(dtype.name)})"


def _wrong(spec: ValueSpec, found: str) -> str:
    return f"input {spec.name!r} is {found}: the model takes {spec.ort_type}"
