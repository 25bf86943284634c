"""Ways to damage an artifact: its bytes, its ZIP structure, its compression, its manifest."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import struct
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Damage = Callable[[bytes, random.Random], bytes]

_ODD_VALUES: tuple[Any, ...] = (
    None, True, 0, 1, -1, 3, 2**31, 2**40, 2**62, 2**63, -(2**63), 10**400, 0.5, 1e308, "", "x",
    "float32", "int64", "string", "sequence", "cpu", "\x1b[31m", "a\nb", "../../etc", [], {}, [1],
    [[]], {"a": 1}, "9" * 100_000,
)  # fmt: skip
_ODD_FIELDS = (0, 1, 7, 8, 14, 0x7F, 0xFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF)

# Fields as (offset, bytes) behind the signature of each record.
_RECORDS = {
    b"PK\3\4": ((6, 2), (8, 2), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2)),
    b"PK\1\2": ((8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (38, 4),
                (42, 4)),
    b"PK\5\6": ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2)),
}  # fmt: skip
_NAMES_AT = {b"PK\3\4": (26, 30), b"PK\1\2": (28, 46)}


def _place(data: bytes | bytearray, rng: random.Random) -> int:
    """A position: anywhere, or near the end, where the manifest and the directory lie."""
    if rng.random() < 0.5:
        return rng.randrange(max(0, len(data) - 6_000), len(data))
    return rng.randrange(len(data))


def flip(data: bytes, rng: random.Random) -> bytes:
    """Bits of up to twenty bytes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 20))):
        out[_place(out, rng)] ^= 1 << rng.randrange(8)
    return bytes(out)


def cut(data: bytes, rng: random.Random) -> bytes:
    """The end, or a part in the middle, is missing."""
    at = _place(data, rng)
    return data[:at] if rng.random() < 0.6 else data[:at] + data[at + rng.randrange(1, 5_000) :]


def swap(data: bytes, rng: random.Random) -> bytes:
    """Two blocks change places."""
    size = rng.choice((1, 8, 64, 512, 4096))
    a, b = sorted((_place(data, rng), _place(data, rng)))
    b = max(b, a + size)
    between, after = data[a + size : b], data[b + size :]
    return data[:a] + data[b : b + size] + between + data[a : a + size] + after


def zero(data: bytes, rng: random.Random) -> bytes:
    """A range is all zeros."""
    at, size = _place(data, rng), rng.choice((1, 16, 512, 4096, 65536))
    return data[:at] + bytes(min(size, len(data) - at)) + data[at + size :]


def insert(data: bytes, rng: random.Random) -> bytes:
    """Bytes too many, of any value or copied from elsewhere."""
    at, size = _place(data, rng), rng.choice((1, 4, 100, 4096))
    source = _place(data, rng)
    new = data[source : source + size] if rng.random() < 0.5 else rng.randbytes(size)
    return data[:at] + new + data[at:]


def _records(data: bytes) -> list[tuple[bytes, int]]:
    found = []
    for magic in _RECORDS:
        at = data.find(magic)
        while at >= 0:
            found.append((magic, at))
            at = data.find(magic, at + 4)
    return found


def zip_fields(data: bytes, rng: random.Random) -> bytes:
    """Sizes, offsets, methods, flags and names in the records of the ZIP file."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        magic, at = rng.choice(_records(data))
        if magic in _NAMES_AT and rng.random() < 0.25:
            _rename(out, magic, at, rng)
            continue
        offset, width = rng.choice(_RECORDS[magic])
        old = int.from_bytes(out[at + offset : at + offset + width], "little")
        new = rng.choice((*_ODD_FIELDS, old + 1, old - 1, old * 2, rng.getrandbits(8 * width)))
        out[at + offset : at + offset + width] = (new % (1 << 8 * width)).to_bytes(width, "little")
    return bytes(out)


def _rename(out: bytearray, magic: bytes, at: int, rng: random.Random) -> None:
    size_at, name_at = _NAMES_AT[magic]
    (size,) = struct.unpack_from("<H", out, at + size_at)
    names = [b"../../x", b"/etc/passwd", b"ir.txt", b"weights.bin", b"\xff\xfe\x00", b"\x1b[2J"]
    new = rng.choice(names)[:size].ljust(size, b"x")
    out[at + name_at : at + name_at + size] = new


def _members(data: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zipped(members: dict[str, bytes], methods: dict[str, int]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content, methods.get(name, zipfile.ZIP_STORED))
    return file.getvalue()


def compression(data: bytes, rng: random.Random) -> bytes:
    """Members in other compressions, most of them damaged there."""
    members = _members(data)
    kinds = (zipfile.ZIP_LZMA, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2, zipfile.ZIP_DEFLATED)
    hit = rng.sample(sorted(members), rng.randrange(1, 4))
    if rng.random() < 0.9:
        hit = [name for name in hit if name != "weights.bin"] or ["ir.txt"]
    if rng.random() < 0.03:
        members[rng.choice(hit)] = bytes(1 << 27)  # a ZIP bomb
        return _zipped(members, dict.fromkeys(hit, zipfile.ZIP_DEFLATED))
    out = bytearray(_zipped(members, {name: rng.choice(kinds) for name in hit}))
    with zipfile.ZipFile(io.BytesIO(bytes(out))) as archive:
        infos = {i.filename: i for i in archive.infolist()}
    for _ in range(rng.choice((0, 1, 1, 3))):
        info = infos[rng.choice(hit)]
        start = info.header_offset + 30 + len(info.filename)
        near = min(info.compress_size, 24 if rng.random() < 0.5 else info.compress_size)
        out[start + rng.randrange(max(near, 1))] = rng.randrange(256)
    return bytes(out)


def manifest(data: bytes, rng: random.Random) -> bytes:
    """Fields of the manifest have other values, and its own hash fits them."""
    members = _members(data)
    parsed = json.loads(members["manifest.json"])
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        _edit(parsed, rng)
    members["manifest.json"] = sealed(parsed)
    methods = {n: zipfile.ZIP_DEFLATED for n in members if n != "weights.bin"}
    return _zipped(members, methods)


def sealed(parsed: dict[str, Any]) -> bytes:
    """A manifest as bytes, with its own hash in it."""
    blank = "0" * 64
    if "self_sha256" in parsed:
        parsed["self_sha256"] = blank
    text = (json.dumps(parsed, indent=1, sort_keys=True) + "\n").encode()
    return text.replace(blank.encode(), hashlib.sha256(text).hexdigest().encode(), 1)


def _edit(parsed: dict[str, Any], rng: random.Random) -> None:
    holder, key = rng.choice(list(_fields(parsed, rng)))
    value = holder[key]
    kind = rng.random()
    if kind < 0.15 and isinstance(holder, list):
        holder.insert(rng.randrange(len(holder)), value)
    elif kind < 0.3:
        del holder[key]
    elif kind < 0.45 and isinstance(holder, list):
        rng.shuffle(holder)
    elif kind < 0.8 and type(value) is int:
        holder[key] = rng.choice((value + 1, value - 1, value * 2, 64 * rng.randrange(200), -value))
    elif kind < 0.8 and type(value) is str and value:
        holder[key] = rng.choice((value[:-1], value * 2, value.upper(), value + "\0"))
    elif kind < 0.8 and isinstance(value, list):
        holder[key] = rng.choice((value[::-1], value[1:], value + value, value + [1]))
    else:
        holder[key] = rng.choice(_ODD_VALUES)


def _fields(parsed: dict[str, Any], rng: random.Random) -> Iterator[tuple[Any, Any]]:
    """The fields of a random way down; so each part is found as often as a long list."""
    node: Any = parsed
    while isinstance(node, dict | list) and node:
        key = rng.choice(sorted(node)) if isinstance(node, dict) else rng.randrange(len(node))
        yield node, key
        node = node[key]


DAMAGES: dict[str, Damage] = {
    "flip": flip, "cut": cut, "swap": swap, "zero": zero, "insert": insert, "zip": zip_fields,
    "compression": compression, "manifest": manifest,
}  # fmt: skip


def folder_damage(data: bytes, place: Path, rng: random.Random) -> None:
    """The artifact as a folder in which one or two members are damaged, missing or no files."""
    place.mkdir()
    for name, content in _members(data).items():
        (place / name).write_bytes(content)
    for name in rng.sample(sorted(os.listdir(place)), rng.choice((1, 1, 2))):
        path = place / name
        kind = rng.randrange(9)
        content = path.read_bytes()
        path.unlink()
        if kind < 4:
            path.write_bytes((flip, cut, swap, insert)[kind](content or b"\0", rng))
        elif kind == 4:
            path.symlink_to(rng.choice(("/dev/zero", "/etc/passwd", name, "/proc/self/mem")))
        elif kind == 5:
            os.mkfifo(path)
        elif kind == 6:
            path.mkdir()
        elif kind == 7:
            path.write_bytes(b"")
