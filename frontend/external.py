"""Tensors stored in files beside the model."""

from __future__ import annotations

import os
from pathlib import Path

import onnx

from .errors import ImportFault, text
from .source import Source, map_file
from .wire import SPAN_KEY


def payload(source: Source, tensor: onnx.TensorProto) -> tuple[memoryview, str] | None:
    """The bytes that a tensor refers to, in its own file or in another, and their field.

    The field is ``raw``, ``float`` or ``double`` (see :mod:`.wire`). None if the tensor contains
    its data. Raises :class:`ImportFault` for files that must not or cannot be read.
    """
    if not tensor.external_data:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise ImportFault("external data without a location")
        return None
    entries = {text(e.key): text(e.value) for e in tensor.external_data}
    if SPAN_KEY in entries:
        return _span(source, entries[SPAN_KEY])
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return None
    location = entries.get("location", "")
    data = source.files.get(location)
    if data is None:
        data = source.files[location] = _open(source, location)
    offset = _number(entries.get("offset", "0"), "offset")
    length = _number(entries.get("length", str(max(len(data) - offset, 0))), "length")
    if offset + length > len(data):
        raise ImportFault(
            f"external data {location!r} has {len(data)} bytes; {length} at {offset} are asked for"
        )
    return data[offset : offset + length], "raw"


def _span(source: Source, note: str) -> tuple[memoryview, str]:
    offset, _, rest = note.partition(":")
    length, _, field = rest.partition(":")
    start, size = _number(offset, "offset"), _number(length, "length")
    if source.data is None or start + size > len(source.data):
        raise ImportFault("a note on where data lies points outside the file")
    return source.data[start : start + size], field


def _number(digits: str, what: str) -> int:
    if not (digits.isascii() and digits.isdigit() and len(digits) < 20):
        raise ImportFault(f"external data with {what} {digits!r}")
    return int(digits)


def _open(source: Source, location: str) -> memoryview:
    if source.path is None:
        raise ImportFault("external data, which needs the model's path, not its bytes")
    if not location or "\0" in location or os.path.isabs(location):
        raise ImportFault(f"external data at {location!r}: a relative path is needed")
    here = Path(os.path.realpath(source.path.parent))
    # If the model is a link (as in download caches), its data may be beside the link's target.
    homes = {here, Path(os.path.realpath(source.path)).parent}
    target = Path(os.path.realpath(here / location))
    if not any(target.is_relative_to(home) for home in homes):
        raise ImportFault(f"external data at {location!r} lies outside the model's folder")
    try:
        return map_file(target)
    except ImportFault as e:
        raise ImportFault(f"external data at {location!r} {e}") from e
