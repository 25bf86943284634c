"""Damaged models: bytes cut, flipped and moved; and messages with odd but readable fields."""

from __future__ import annotations

import random
from collections.abc import Callable

import onnx
from google.protobuf.message import Message

_ODD_INTS = (0, 1, -1, 2, 7, 99, 2**31, 2**40, 2**62, -(2**63))
_ODD_FLOATS = (0.0, -1.0, 1e30, float("nan"), float("inf"))
_ODD_TEXTS = ("", "x", "y", "ai.onnx.ml", "local", "Loop", "Reshape", "\n", "../../etc")


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """A copy with a few bytes changed, or cut off, or moved."""
    out = bytearray(data)
    kind = rng.randrange(5)
    if kind == 0:
        return bytes(out[: rng.randrange(len(out))])
    for _ in range(rng.choice((1, 2, 5, 20))):
        at = rng.randrange(len(out))
        if kind == 1:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 2:
            out[at] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 3:
            del out[at : at + rng.randrange(1, 9)]
            out = out or bytearray(b"\0")
        else:
            start = rng.randrange(len(out))
            out[at:at] = out[start : start + rng.randrange(1, 40)]
    return bytes(out)


def mutate_fields(data: bytes, rng: random.Random) -> bytes:
    """A copy in which some fields have other values of their kind: readable, but odd."""
    proto = onnx.ModelProto.FromString(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rng.choice(_EDITS)(rng.choice(_messages(proto, rng)), rng)
    return proto.SerializeToString()


def _messages(proto: Message, rng: random.Random) -> list[Message]:
    """Messages on a random way down; so small parts are found as often as large ones."""
    path = [proto]
    while True:
        inner = [
            m
            for field, value in path[-1].ListFields()
            if field.message_type is not None
            for m in (value if field.is_repeated else [value])
        ]
        if not inner:
            return path
        path.append(rng.choice(inner))


def _set(message: Message, rng: random.Random) -> None:
    """Give one field that is set another value."""
    fields = [(f, v) for f, v in message.ListFields() if f.message_type is None]
    if not fields:
        return
    field, value = rng.choice(fields)
    odd: object
    if field.cpp_type in (field.CPPTYPE_INT64, field.CPPTYPE_INT32, field.CPPTYPE_ENUM):
        odd = rng.choice(_ODD_INTS)
    elif field.cpp_type in (field.CPPTYPE_FLOAT, field.CPPTYPE_DOUBLE):
        odd = rng.choice(_ODD_FLOATS)
    else:
        odd = rng.choice(_ODD_TEXTS)
        odd = odd.encode() if field.type == field.TYPE_BYTES else odd
    try:
        if field.is_repeated:
            value[rng.randrange(len(value))] = odd
        else:
            setattr(message, field.name, odd)
    except (ValueError, TypeError):
        return  # out of the field's range


def _clear(message: Message, rng: random.Random) -> None:
    fields = message.ListFields()
    if fields:
        message.ClearField(rng.choice(fields)[0].name)


def _repeat(message: Message, rng: random.Random) -> None:
    """Repeat or drop one entry of a repeated field."""
    fields = [(f, v) for f, v in message.ListFields() if f.is_repeated]
    if not fields:
        return
    _, values = rng.choice(fields)
    at = rng.randrange(len(values))
    if rng.random() < 0.5:
        del values[at]
    else:
        values.append(values[at])


def _swap(message: Message, rng: random.Random) -> None:
    """Exchange two entries of a repeated field of texts or numbers."""
    plain = [v for f, v in message.ListFields() if f.is_repeated and f.message_type is None]
    long = [v for v in plain if len(v) > 1]
    if long:
        values = rng.choice(long)
        i, j = rng.randrange(len(values)), rng.randrange(len(values))
        values[i], values[j] = values[j], values[i]


_EDITS: tuple[Callable[[Message, random.Random], None], ...] = (_set, _set, _clear, _repeat, _swap)
