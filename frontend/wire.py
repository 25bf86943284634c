"""Taking the weights out of a serialised model before protobuf sees it.

Protobuf copies every byte of a message and refuses messages of 2 GiB. So the file is first read on
the level of the wire format, and copied without its large tensor payloads, each of which a note of
its position in the file replaces. The copy is small and parsed fast, and the weights are read in
place.

The note is an ``external_data`` entry with the key :data:`SPAN_KEY` and the value
``offset:length:field``. A file that carries such entries itself can only name its own bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..errors import GraphkilnError

Buffer = memoryview

SPAN_KEY = "graphkiln.span"
THRESHOLD = 1 << 14
"""Payloads of fewer bytes stay in the message."""

_MAX_DEPTH = 100
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5

# By message and field number, the message in the field, on all paths to a TensorProto.
_NESTED: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {
        5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse",
    },
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}  # fmt: skip
# The payload fields of a TensorProto whose wire form is the bytes of the array.
_PAYLOADS = {9: "raw", 4: "float", 10: "double"}


class WireError(GraphkilnError, ValueError):
    """The bytes are not a protobuf message."""


def slim(data: Buffer) -> bytes:
    """A serialised ModelProto like ``data``, with notes in place of large payloads.

    Raises :class:`WireError` if ``data`` is no protobuf message.
    """
    parts: list[bytes | Buffer] = []
    _slim(data, 0, len(data), "model", parts, 0)
    return b"".join(parts)


def _slim(
    data: Buffer, start: int, end: int, kind: str, parts: list[bytes | Buffer], depth: int
) -> int:
    """Append the slim form of ``data[start:end]`` to ``parts``; returns its length."""
    if depth > _MAX_DEPTH:
        raise WireError(f"messages nest more than {_MAX_DEPTH} deep")
    nested, payloads = _NESTED[kind], _PAYLOADS if kind == "tensor" else {}
    done, size, seen = start, 0, set()
    for number, head, body, stop in _large_fields(data, start, end):
        if number not in nested and number not in payloads:
            continue
        parts.append(data[done:head])
        size += head - done
        done = stop
        if number in nested:
            inner: list[bytes | Buffer] = []
            length = _slim(data, body, stop, nested[number], inner, depth + 1)
            prefix = _encode(number << 3 | _BYTES) + _encode(length)
            parts.extend((prefix, *inner))
            size += len(prefix) + length
        else:
            if number in seen:
                raise WireError(f"a tensor at byte {start} carries its data twice")
            seen.add(number)
            note = _note(body, stop - body, payloads[number])
            parts.append(note)
            size += len(note)
    parts.append(data[done:end])
    return size + end - done


def _large_fields(data: Buffer, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Every length-delimited field over the threshold: number, start, payload start and end."""
    pos = start
    while pos < end:
        head = pos
        tag, pos = _decode(data, pos, end)
        wire = tag & 7
        if wire == _BYTES:
            length, pos = _decode(data, pos, end)
            body, pos = pos, pos + length
        elif wire == _VARINT:
            body = pos
            _, pos = _decode(data, pos, end)
        elif wire in (_FIXED64, _FIXED32):
            body, pos = pos, pos + (8 if wire == _FIXED64 else 4)
        else:
            raise WireError(f"byte {head} starts no field that a model may have")
        if pos > end or tag < 8:
            raise WireError(f"the field at byte {head} is cut off or broken")
        if wire == _BYTES and pos - body >= THRESHOLD:
            yield tag >> 3, head, body, pos


def _decode(data: Buffer, pos: int, end: int) -> tuple[int, int]:
    value = shift = 0
    while pos < end and shift < 64:
        byte = data[pos]
        pos += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, pos
        shift += 7
    raise WireError(f"the number at byte {pos} is cut off or broken")


def _encode(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _field(number: int, body: bytes) -> bytes:
    return _encode(number << 3 | _BYTES) + _encode(len(body)) + body


def _note(offset: int, length: int, field: str) -> bytes:
    text = f"{offset}:{length}:{field}".encode()
    return _field(13, _field(1, SPAN_KEY.encode()) + _field(2, text))
