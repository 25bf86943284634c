"""The two forms of an artifact, a ZIP file and a folder, behind one interface.

Members are looked up by their five fixed names, and by names that cannot lead out of a folder
(`graphkiln.contract.MEMBER_NAME`): no other name that a file contains is ever used as a path.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO, NoReturn, Protocol

import numpy as np

from ..contract import (
    LARGE_MEMBER,
    MANIFEST,
    MEMBER_NAME,
    MEMBERS,
    MOST_DEFLATED,
    MOST_MEMBERS,
    WEIGHTS,
)
from .errors import ArtifactError, first_line

_NAMES = (*MEMBERS, MANIFEST)
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_LOCAL_MAGIC = b"PK\3\4"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)

# What the standard library raises on a malformed archive.
_MALFORMED = (
    zipfile.BadZipFile, zlib.error, struct.error, ValueError, RuntimeError, EOFError,
    OverflowError, OSError,
)  # fmt: skip


class Container(Protocol):
    """Read access to the members of an artifact; ``further`` are those beside the five."""

    @property
    def further(self) -> Collection[str]: ...

    def size(self, member: str) -> int:
        """Bytes of a member's content."""
        ...

    def read(self, member: str) -> bytes:
        """The content of a member. Raises ArtifactError where it cannot be read."""
        ...

    def map_weights(self) -> np.ndarray:
        """``weights.bin`` as a copy-on-write uint8 mapping, which outlives the container."""
        ...

    def close(self) -> None:
        """Lets go of the files."""
        ...


def open_container(path: str) -> Container:
    """Opens a ``.kiln`` file or folder. Raises ArtifactError where it is neither."""
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            return FolderContainer(path)
        if not stat.S_ISREG(mode):
            raise ArtifactError("is neither a file nor a folder")
        file = open(path, "rb")
    except FileNotFoundError:
        raise ArtifactError("there is no such file") from None
    except (OSError, ValueError) as error:
        raise ArtifactError(f"cannot be opened ({first_line(error)})") from None
    try:
        return ZipContainer(file)
    except BaseException:
        file.close()
        raise


class ZipContainer:
    """A ``.kiln`` file. The weights are stored, not deflated, so that they can be mapped."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        with _readable():
            self._zip = zipfile.ZipFile(file)
        infos = self._zip.infolist()
        self.further = _require([info.filename for info in infos])
        self._infos = {info.filename: info for info in infos}
        for info in infos:
            if info.compress_type not in _METHODS:
                raise ArtifactError(f"{info.filename} is neither stored nor deflated")
            if info.file_size > max(LARGE_MEMBER, MOST_DEFLATED * info.compress_size):
                raise ArtifactError(
                    f"{info.filename} grows from {info.compress_size} to {info.file_size} bytes, "
                    "which nothing does that was compiled: the file is damaged or made to do harm"
                )

    def size(self, member: str) -> int:
        return self._infos[member].file_size

    def read(self, member: str) -> bytes:
        with _readable():
            return self._zip.read(member)

    def map_weights(self) -> np.ndarray:
        info = self._infos[WEIGHTS]
        if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
            raise ArtifactError("weights.bin is compressed, so it cannot be mapped")
        with _readable():
            self._file.seek(info.header_offset)
            header = self._file.read(_LOCAL_HEADER.size)
            magic, name_length, extra_length = _LOCAL_HEADER.unpack(header)
            if magic != _LOCAL_MAGIC:
                raise ValueError("no header before weights.bin")
        start = info.header_offset + len(header) + name_length + extra_length
        return _map(self._file, start, info.file_size)

    def close(self) -> None:
        self._zip.close()
        self._file.close()


class FolderContainer:
    """A folder with the members as plain files.

    Each is opened once, so that the content that is used is the content that was checked, even if
    somebody replaces the file in between.
    """

    def __init__(self, path: str) -> None:
        with _readable():
            names = os.listdir(path)
        self.further = _require(names)
        with ExitStack() as opened:
            self._files = {
                name: opened.enter_context(_plain_file(path, name))
                for name in (*_NAMES, *self.further)
            }
            self._opened = opened.pop_all()

    def size(self, member: str) -> int:
        return os.fstat(self._files[member].fileno()).st_size

    def read(self, member: str) -> bytes:
        with _readable():
            return self._files[member].read()

    def map_weights(self) -> np.ndarray:
        return _map(self._files[WEIGHTS], 0, self.size(WEIGHTS))

    def close(self) -> None:
        self._opened.close()


def _plain_file(folder: str, member: str) -> BinaryIO:
    """Open a member; raises ArtifactError unless it is a regular file.

    Links are not followed, as they could lead out of the folder, and a pipe does not block.
    """
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        file = open(os.open(os.path.join(folder, member), flags), "rb")
    except OSError as error:
        raise ArtifactError(f"{member} is not a plain file ({first_line(error)})") from None
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise ArtifactError(f"{member} is not a plain file")
    return file


@contextmanager
def _readable() -> Iterator[None]:
    """Turn what the standard library raises for a malformed archive into ArtifactError."""
    try:
        yield
    except _MALFORMED as error:
        raise ArtifactError(
            f"is no readable artifact ({first_line(error)}): copy it again or compile the model "
            "again"
        ) from None


def _require(names: Iterable[str]) -> list[str]:
    """Others than the five members; raises ArtifactError unless each of these is there once."""
    found = sorted(names)
    for name in _NAMES:
        if found.count(name) != 1:
            problem = "holds twice" if name in found else "lacks"
            raise ArtifactError(f"is no graphkiln artifact: it {problem} {name}")
    further = [name for name in found if name not in _NAMES]
    for name, before in zip(further, ["", *further], strict=False):
        if name == before or not MEMBER_NAME.fullmatch(name):
            refuse_stranger(name)
    if len(further) > MOST_MEMBERS:
        raise ArtifactError(f"holds more than {MOST_MEMBERS} members beside those of all artifacts")
    return further


def refuse_stranger(name: str) -> NoReturn:
    """A member that the manifest does not know."""
    raise ArtifactError(f"holds a member that does not belong there: {name!r}")


def _map(file: BinaryIO, start: int, size: int) -> np.ndarray:
    """A copy-on-write mapping of bytes ``start`` to ``start+size`` of a file.

    It is writable because NumPy exports no read-only arrays through DLPack.
    """
    if size == 0:
        return np.empty(0, np.uint8)
    if start + size > os.fstat(file.fileno()).st_size:
        raise ArtifactError("ends before weights.bin does: the file is cut off, copy it again")
    slack = start % mmap.ALLOCATIONGRANULARITY
    with _readable():
        view = mmap.mmap(file.fileno(), size + slack, access=mmap.ACCESS_COPY, offset=start - slack)
    return np.frombuffer(view, np.uint8, size, slack)
