"""Tensor elements as text, exactly: they are read back bit for bit.

Floats are written with the fewest digits that read back to the same bits. Where no decimal does, as
for NaN payloads, the bits are written as a hexadecimal number.
"""

from __future__ import annotations

import hashlib
import json
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import GraphkilnError
from .types import DType, dtype, from_numpy_dtype, to_numpy_dtype

HASH_DIGITS = 16
"""Hexadecimal digits of SHA-256 that name a constant in the text format."""

_CACHED_BYTES = 1 << 20
_hashes: dict[int, tuple[weakref.ref[np.ndarray], str]] = {}


class LiteralError(GraphkilnError, ValueError):
    """A literal does not fit its element type."""


def quote(text: str | bytes) -> str:
    """A JSON string of ASCII characters; bytes get a ``b`` in front and one character a byte."""
    if isinstance(text, bytes):
        return "b" + json.dumps(text.decode("latin-1"))
    return json.dumps(text)


def constant_hash(array: np.ndarray) -> str:
    """The hash of a constant's element type, shape and bytes.

    Constants must not change: the hash of a large array is cached.
    """
    if array.nbytes < _CACHED_BYTES:
        return _digest(array)
    found = _hashes.get(id(array))
    if found is not None and found[0]() is array:
        return found[1]
    key, digest = id(array), _digest(array)
    _hashes[key] = weakref.ref(array, lambda _: _hashes.pop(key, None)), digest
    return digest


def _digest(array: np.ndarray) -> str:
    state = hashlib.sha256(f"{from_numpy_dtype(array.dtype)}{list(array.shape)}".encode())
    state.update(raw_bytes(array))
    return state.hexdigest()[:HASH_DIGITS]


def raw_bytes(array: np.ndarray) -> bytes | memoryview:
    """The elements as little-endian bytes; strings as a list of literals."""
    if from_numpy_dtype(array.dtype).kind == "s":
        return ",".join(format_elements(array)).encode()
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return np.ascontiguousarray(little).reshape(-1).view(np.uint8).data


def same_constant(a: np.ndarray, b: np.ndarray) -> bool:
    """True where element type, shape and every bit agree."""
    if a is b:
        return True
    if from_numpy_dtype(a.dtype) != from_numpy_dtype(b.dtype) or a.shape != b.shape:
        return False
    return bytes(raw_bytes(a)) == bytes(raw_bytes(b))


# ---- printing ------------------------------------------------------------------------------------


def format_elements(array: np.ndarray) -> list[str]:
    """One literal for each element, in row-major order."""
    kind = from_numpy_dtype(array.dtype).kind
    flat = array.reshape(-1)
    if kind == "s":
        return [quote(v if isinstance(v, bytes) else str(v)) for v in flat]
    if kind == "b":
        return ["true" if v else "false" for v in flat]
    if kind in "iu":
        return [str(int(v)) for v in flat]
    if kind == "c":
        return [f"({format_float(v.real)}, {format_float(v.imag)})" for v in flat]
    return [format_float(v) for v in flat]


def format_float(value: Any) -> str:
    """The shortest literal that reads back to the same bits of ``value``'s own NumPy type."""
    target = np.asarray(value)
    bits = target.tobytes()
    for text in _candidates(target):
        if _float_from_text(text, target.dtype).tobytes() == bits:
            return text
    return f"0x{int.from_bytes(bits, 'little'):0{2 * len(bits)}x}"


def _candidates(value: np.ndarray) -> Sequence[str]:
    with np.errstate(all="ignore"):
        wide = float(value)
    if not np.isfinite(wide):
        return [str(wide)]
    if value.dtype == np.float64:
        return [repr(wide)]
    return [_as_float(f"{wide:.{digits}g}") for digits in range(1, 18)]


def _as_float(text: str) -> str:
    return text if any(c in text for c in ".en") else f"{text}.0"


def _float_from_text(text: str, target: np.dtype) -> np.ndarray:
    with np.errstate(all="ignore"):
        return np.asarray(float(text), dtype=np.float64).astype(target)


# ---- parsing -------------------------------------------------------------------------------------


def parse_elements(literals: Sequence[Any], element: DType, shape: Sequence[int]) -> np.ndarray:
    """An array of ``literals``: strings from the text (for complex, pairs of strings).

    Raises :class:`LiteralError` if one does not fit, or their number does not fit ``shape``.
    """
    count = int(np.prod(shape, dtype=object))
    if len(literals) != count:
        raise LiteralError(f"{len(literals)} elements where the shape {list(shape)} has {count}")
    out = np.empty(count, to_numpy_dtype(element))
    for i, literal in enumerate(literals):
        out[i] = parse_element(literal, element)
    return out.reshape(tuple(shape))


def parse_element(literal: Any, element: DType) -> Any:
    """One element; see :func:`parse_elements`."""
    if element.kind == "c":
        return _complex(literal, element)
    if not isinstance(literal, str):
        raise LiteralError(f"{literal!r} is not a {element}")
    if element.kind == "s":
        return parse_string(literal)
    if element.kind == "b":
        if literal not in ("true", "false"):
            raise LiteralError(f"{literal!r} is not true or false")
        return literal == "true"
    return _integer(literal, element) if element.is_integer else parse_float(literal, element)


def parse_string(literal: str) -> str | bytes:
    """The string or bytes of a quoted literal."""
    try:
        text = json.loads(literal.removeprefix("b"))
        if not isinstance(text, str):
            raise ValueError("not quoted")
        return text.encode("latin-1") if literal.startswith("b") else text
    except ValueError as e:
        raise LiteralError(f"{literal[:40]!r} is not a string: {e}") from e


def _integer(literal: str, element: DType) -> int:
    try:
        value = int(literal)
    except ValueError as e:
        raise LiteralError(f"{literal[:40]!r} is not an integer") from e
    low = -(1 << (element.bits - 1)) if element.kind == "i" else 0
    if not low <= value < low + (1 << element.bits):
        raise LiteralError(f"{literal[:40]} does not fit {element}")
    return value


def parse_float(literal: str, element: DType) -> Any:
    """A NumPy scalar of ``element`` from a decimal, ``inf``, ``nan`` or hexadecimal bits."""
    target = to_numpy_dtype(element)
    try:
        if not literal.startswith("0x"):
            return _float_from_text(literal, target)[()]
        bits = int(literal, 16).to_bytes(target.itemsize, "little")
    except (ValueError, OverflowError) as e:
        raise LiteralError(f"{literal[:40]!r} is not a {element}") from e
    return np.frombuffer(bits, target)[0]


def _complex(literal: Any, element: DType) -> Any:
    if not isinstance(literal, tuple) or len(literal) != 2:
        raise LiteralError(f"{literal!r} is not a pair (real, imaginary)")
    half = dtype("float32" if element.bits == 64 else "float64")
    out = np.zeros((), to_numpy_dtype(element))
    out.real, out.imag = (parse_float(part, half) for part in literal)
    return out[()]
