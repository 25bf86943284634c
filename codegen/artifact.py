"""Writes an artifact: one ``.kiln`` file, or a folder with the same members.

A ``.kiln`` file is a ZIP archive (ZIP64 where it must be) of five members, and what targets add:

``manifest.json``  what the model takes and gives and needs; see `ArtifactContents.manifest`
``library.so``     the compiled code, and behind its end the digest of what it was compiled for
                   (`graphkiln.contract.interface_digest`); deflated
``weights.bin``    all weights one after the other, each on a 64-byte border, zeros between, padded
                   to a multiple of 64; stored, and starting on a 4096-byte border of the file,
                   so that it can be mapped. Weights that are mostly zero are without their zeros
``ir.txt``         the optimised IR; deflated
``report.json``    the compile report; deflated

A reader takes a large member for a ZIP bomb, and refuses it, if it is more than a hundred times as
large as its deflated form (`MOST_DEFLATED`). Members that come within half of that are stored.

A folder holds them as plain files. Equal contents give equal bytes: times, permissions and
order are fixed.

The writer adds to the manifest: ``schema``; ``weights``, a list of ``{name, dtype, shape, offset,
nbytes}`` in the order the code takes them; ``files``, the SHA-256 and size of each other member's
content; ``members``, the kind, SHA-256 and size of what targets added, where they did;
``weights_checksum``, which `graphkiln.runtime.checksum` defines; and ``self_sha256``, the
SHA-256 of ``manifest.json`` with 64 zeros in place of that value.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np

from ..contract import (
    ALIGNMENT,
    BLANK_DIGEST,
    EXPANDED,
    GRID64,
    GRID_ABOVE,
    GRID_BLOCK,
    GRID_COLUMNS,
    GRID_ROWS,
    GRID_SEGMENT,
    IR_TEXT,
    LARGE_MEMBER,
    LIBRARY,
    MANIFEST,
    MEMBER_KIND,
    MEMBER_NAME,
    MEMBERS,
    MOST_DEFLATED,
    MOST_MEMBERS,
    REPORT,
    SCHEMA,
    SHA256,
    WEIGHTS,
    interface_digest,
)
from ..errors import GraphkilnError, InputError
from ..ir.storage import storage_array
from ..ir.types import from_numpy_dtype
from ..targets.base import Member
from .compact import compact

FILE_ALIGNMENT = 4096
"""Bytes: where ``weights.bin`` starts in a file, so that it can be mapped."""

_EPOCH = (1980, 1, 1, 0, 0, 0)
_LOCAL_HEADER_SIZE = 30
_ZIP64_FIELD_SIZE = 20
# The extra field that aligned Android packages pad with; readers skip what they do not know.
_PADDING_FIELD = 0xD935
_PIECE = 8 << 20

Weights: TypeAlias = "Sequence[tuple[str, np.ndarray]]"
Store: TypeAlias = "Callable[[str, bytes | Iterator[memoryview], int], None]"


class ArtifactWriteError(GraphkilnError):
    """An artifact could not be written; one line, and nothing half-written is left."""


@dataclass(frozen=True)
class ArtifactContents:
    """What goes into an artifact.

    ``manifest`` holds ``producer``, ``target``, ``inputs``, ``outputs``, ``provenance`` and
    ``host_functions``. ``weights`` are names and arrays in storage dtype (or ml_dtypes arrays), in
    the order in which the code takes them; they may be memory-mapped and are never joined.
    ``members`` are further ones by name, ``weight_spaces`` the memory spaces, by number, of weights
    that are not wanted in the host's.
    """

    manifest: dict[str, Any]
    library: bytes
    weights: Weights
    ir_text: str
    report: dict[str, Any]
    members: Mapping[str, Member] = field(default_factory=dict)
    weight_spaces: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ArtifactWriteError for members whose names or kinds no runtime would take."""
        if len(self.members) > MOST_MEMBERS:
            raise ArtifactWriteError(f"an artifact has at most {MOST_MEMBERS} further members")
        for name, member in self.members.items():
            if name in (*MEMBERS, MANIFEST) or not MEMBER_NAME.fullmatch(name):
                raise ArtifactWriteError(f"{name!r} is no name for a further member of an artifact")
            if not MEMBER_KIND.fullmatch(member.kind):
                raise ArtifactWriteError(
                    f"the kind of the member {name!r} is a device and a word, such as"
                    f" 'cuda.modules', not {member.kind!r}"
                )


def write_artifact(
    contents: ArtifactContents, path: str | os.PathLike[str], folder: bool = False
) -> None:
    """Writes the artifact beside ``path`` and then puts it in place, replacing an older one.

    Raises ArtifactWriteError, with nothing left behind, where the disk is full, the folder does
    not exist, or something is in the way that is no artifact (nor a file named ``*.kiln``).
    """
    target = _path(path)
    with _told(target):
        _require_free(target, folder)
        if folder:
            _write_folder(contents, target)
        else:
            _write_file(contents, target)


def require_writable(path: str | os.PathLike[str], folder: bool = False) -> None:
    """Raises ArtifactWriteError where `write_artifact` would, as far as that can be told now."""
    target = _path(path)
    with _told(target):
        _require_free(target, folder)
        with _beside(target) as temporary:
            temporary.touch(exist_ok=False)


def _path(path: str | os.PathLike[str]) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise InputError(f"an artifact's path is a str or a path, not a {type(path).__name__}")
    return Path(os.fsdecode(path))


@contextmanager
def _told(target: Path) -> Iterator[None]:
    """Turn errors of the operating system into ArtifactWriteError."""
    try:
        yield
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ArtifactWriteError(f"cannot write it: {reason}", file=str(target)) from error


def _require_free(target: Path, folder: bool) -> None:
    """Raise unless the target is free, an artifact, or a file called ``*.kiln``.

    Anything else, such as a model whose name was given as the output, is not overwritten.
    """
    if folder:
        if target.exists() and not (target / MANIFEST).is_file():
            raise ArtifactWriteError(
                "cannot write it: it exists and is no artifact folder", file=str(target)
            )
    elif target.is_dir():
        raise ArtifactWriteError("cannot write it: it is a folder", file=str(target))
    elif target.exists() and target.suffix != ".kiln" and not _is_artifact(target):
        raise ArtifactWriteError(
            "cannot write it: it exists and is no artifact; remove it or choose another name",
            file=str(target),
        )


def _is_artifact(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        with zipfile.ZipFile(path) as archive:
            return MANIFEST in archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return False


def _write_file(contents: ArtifactContents, target: Path) -> None:
    with _beside(target) as temporary:
        with open(temporary, "xb") as file:
            with zipfile.ZipFile(file, "w") as archive:
                _write_members(contents, _zip_store(archive, file))
            _flush(file)
        os.replace(temporary, target)


def _write_folder(contents: ArtifactContents, target: Path) -> None:
    with _beside(target) as temporary:
        temporary.mkdir()
        _write_members(contents, _folder_store(temporary))
        if not target.exists():
            os.rename(temporary, target)
            return
        with _beside(target) as old:
            _exchange(temporary, target, old)


def _exchange(new: Path, target: Path, old: Path) -> None:
    """Put folder ``new`` in the place of ``target``, which becomes ``old``.

    Renaming cannot replace a folder that is not empty, so it takes two steps; if the second fails,
    the first is undone.
    """
    os.rename(target, old)
    try:
        os.rename(new, target)
    except BaseException:
        os.rename(old, target)
        raise


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """A fresh name in the target's folder; what still has that name at the end is removed."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{os.urandom(4).hex()}.tmp")
    try:
        yield temporary
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary, ignore_errors=True)
        else:
            temporary.unlink(missing_ok=True)


def _flush(file: IO[bytes]) -> None:
    """Write to disk now: a full disk shows here, and after a power cut the file is not empty."""
    file.flush()
    os.fsync(file.fileno())


def _write_members(contents: ArtifactContents, store: Store) -> None:
    arrays = [(name, _storage(name, array)) for name, array in contents.weights]
    entries, size = _layout(arrays)
    for number, space in contents.weight_spaces.items():
        entries[number]["space"] = space
    pieces, total = _stored(arrays, entries)
    digest = _Digest(total)
    store(WEIGHTS, digest.watch(_weight_pieces(pieces)), total)
    files = {WEIGHTS: {"sha256": digest.sha256, "size": total}}
    further = sorted(contents.members.items())
    stated = {"host_functions": [], **contents.manifest, "weights": entries}
    if total != size:
        stated[EXPANDED] = size
    if further:
        stated["members"] = {n: {"kind": m.kind, **_file(m.content)} for n, m in further}
    for name, data in (
        (LIBRARY, contents.library + interface_digest(stated)),
        (IR_TEXT, contents.ir_text.encode()),
        (REPORT, _json(contents.report)),
    ):
        store(name, data, len(data))
        files[name] = _file(data)
    for name, member in further:
        store(name, member.content, len(member.content))
    manifest = {
        **stated,
        "schema": SCHEMA,
        "files": files,
        "weights_checksum": {"algorithm": digest.algorithm, "digest": digest.checksum},
        "self_sha256": BLANK_DIGEST,
    }
    data = _sealed(_json(manifest))
    store(MANIFEST, data, len(data))


def _file(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def _json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def _sealed(manifest: bytes) -> bytes:
    """The manifest with its own hash in the place of the zeros."""
    field = b'"self_sha256": "' + BLANK_DIGEST.encode()
    digest = hashlib.sha256(manifest).hexdigest().encode()
    return manifest.replace(field, field.replace(BLANK_DIGEST.encode(), digest), 1)


def _storage(name: str, array: np.ndarray) -> tuple[str, np.ndarray]:
    """The IR dtype of a weight, and the weight as little-endian values in row order."""
    if array.dtype.hasobject or array.dtype.kind in "US":
        raise ArtifactWriteError(f"weight {name!r} holds strings; they go into host functions")
    dtype, array = from_numpy_dtype(array.dtype).name, storage_array(array)
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("<"))
    return dtype, array


def _layout(
    arrays: Sequence[tuple[str, tuple[str, np.ndarray]]],
) -> tuple[list[dict[str, Any]], int]:
    """The manifest's entry of each weight, and the size of them all."""
    entries, offset = [], 0
    for name, (dtype, array) in arrays:
        entry = {"name": name, "dtype": dtype, "shape": list(array.shape)}
        entries.append({**entry, "offset": offset, "nbytes": array.nbytes})
        offset += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
    return entries, offset


def _stored(
    arrays: Sequence[tuple[str, tuple[str, np.ndarray]]], entries: Sequence[dict[str, Any]]
) -> tuple[list[np.ndarray], int]:
    """What ``weights.bin`` holds of each weight, and the bytes of it all.

    Where weights that are mostly zero are compact, the entries say where each of all begins.
    """
    small = [compact(array) for _, (_, array) in arrays]
    pieces = [
        array if found is None else found[0]
        for found, (_, (_, array)) in zip(small, arrays, strict=True)
    ]
    offset = 0
    for entry, found, piece in zip(entries, small, pieces, strict=True):
        if any(s is not None for s in small):
            entry["stored"] = offset
        if found is not None:
            entry["nonzeros"] = found[1]
        offset += -(-piece.nbytes // ALIGNMENT) * ALIGNMENT
    return pieces, offset


def _weight_pieces(pieces: Sequence[np.ndarray]) -> Iterator[memoryview]:
    """The content of ``weights.bin``, a few megabytes at a time."""
    for array in pieces:
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        for start in range(0, len(flat), _PIECE):
            yield flat[start : start + _PIECE].data
        yield memoryview(bytes(-array.nbytes % ALIGNMENT))


class _Digest:
    """The hashes of ``weights.bin``, computed while it is written.

    ``sha256`` is that of the content; ``checksum``, by ``algorithm``, is the fast one that loading
    checks.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._plain = hashlib.sha256()
        self._segments = hashlib.sha256()
        self._pending = bytearray()
        self.algorithm = GRID64 if total > GRID_ABOVE else SHA256

    def watch(self, pieces: Iterator[memoryview]) -> Iterator[memoryview]:
        """Yields the pieces unchanged, and hashes each."""
        for piece in pieces:
            self._plain.update(piece)
            if self.algorithm == GRID64:
                self._condense(piece)
            yield piece

    @property
    def sha256(self) -> str:
        return self._plain.hexdigest()

    @property
    def checksum(self) -> str:
        if self.algorithm == SHA256:
            return self.sha256
        final = self._segments.copy()
        if self._pending:
            final.update(_condensed(self._pending))
        final.update(struct.pack("<Q", self._total))
        return final.hexdigest()

    def _condense(self, piece: memoryview) -> None:
        self._pending += piece
        while len(self._pending) >= GRID_SEGMENT:
            self._segments.update(_condensed(self._pending[:GRID_SEGMENT]))
            del self._pending[:GRID_SEGMENT]


def _condensed(segment: bytearray) -> bytes:
    """The digest of a segment: column and row sums of its blocks."""
    segment += bytes(-len(segment) % GRID_BLOCK)
    grids = np.frombuffer(segment, "<u8").reshape(-1, GRID_ROWS, GRID_COLUMNS)
    sums = np.concatenate([grids.sum(axis=1), grids.sum(axis=2)], axis=1)
    return hashlib.sha256(sums.data).digest()


def _zip_store(archive: zipfile.ZipFile, file: IO[bytes]) -> Store:
    def store(name: str, data: bytes | Iterator[memoryview], size: int) -> None:
        info = zipfile.ZipInfo(name, _EPOCH)
        info.create_system = 3
        info.external_attr = 0o100644 << 16
        info.file_size = size
        mapped = name == WEIGHTS
        stored = mapped or _repeats(data)
        info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
        # The rule by which zipfile itself decides, so that the header has the size that we expect.
        large = size * 1.05 > zipfile.ZIP64_LIMIT
        if mapped:
            info.extra = _padding(file.tell(), name, large)
        with archive.open(info, "w", force_zip64=large) as member:
            _copy(data, member)
        # Only the header before the data needs the padding, not the archive's directory.
        info.extra = b""

    return store


def _repeats(data: bytes | Iterator[memoryview]) -> bool:
    """Would deflated data be so small that a reader might refuse it (see the module's text)?"""
    if not isinstance(data, bytes) or len(data) <= LARGE_MEMBER:
        return False
    return len(zlib.compress(data)) * MOST_DEFLATED // 2 < len(data)


def _padding(position: int, name: str, large: bool) -> bytes:
    """A ZIP extra field of such a size that the member's data starts on a 4096-byte border."""
    start = position + _LOCAL_HEADER_SIZE + len(name) + (_ZIP64_FIELD_SIZE if large else 0)
    fill = -(start + 4) % FILE_ALIGNMENT
    return struct.pack("<HH", _PADDING_FIELD, fill) + bytes(fill)


def _folder_store(folder: Path) -> Store:
    def store(name: str, data: bytes | Iterator[memoryview], _size: int) -> None:
        with open(folder / name, "xb") as file:
            _copy(data, file)
            _flush(file)

    return store


def _copy(data: bytes | Iterator[memoryview], file: IO[bytes]) -> None:
    if isinstance(data, bytes):
        file.write(data)
        return
    for piece in data:
        file.write(piece)
