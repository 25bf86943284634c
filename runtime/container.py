"""The two forms of an artifact, a ZIP file and a folder, behind one reader.

Members are looked up by their five fixed names, so no name out of the file ever becomes a path.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, Protocol

import numpy as np

from .errors import ArtifactError, first_line
from .manifest import LIBRARY, MANIFEST, MEMBERS, WEIGHTS

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
    """Read access to the members of an artifact."""

    def size(self, member: str) -> int:
        """Bytes of a member's content."""
        ...

    def read(self, member: str) -> bytes:
        """The content of a member. Raises ArtifactError where it cannot be read."""
        ...

    def map_weights(self) -> np.ndarray:
        """``weights.bin`` as a copy-on-write uint8 mapping, which outlives the container."""
        ...

    def library_path(self) -> str | None:
        """The path of ``library.so`` where it is a file of its own."""
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
        _require([info.filename for info in infos])
        self._infos = {info.filename: info for info in infos}
        for info in infos:
            if info.compress_type not in _METHODS:
                raise ArtifactError(f"{info.filename} is neither stored nor deflated")

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

    def library_path(self) -> str | None:
        return None

    def close(self) -> None:
        self._zip.close()
        self._file.close()


class FolderContainer:
    """A folder with the members as plain files."""

    def __init__(self, path: str) -> None:
        self._path = path
        with _readable():
            names = os.listdir(path)
        _require(names)
        self._sizes = {name: self._regular_size(name) for name in _NAMES}

    def _regular_size(self, member: str) -> int:
        """A link could lead out of the folder, so only plain files will do."""
        with _readable():
            status = os.lstat(os.path.join(self._path, member))
        if not stat.S_ISREG(status.st_mode):
            raise ArtifactError(f"{member} is not a plain file")
        return status.st_size

    def size(self, member: str) -> int:
        return self._sizes[member]

    def read(self, member: str) -> bytes:
        with _readable(), open(os.path.join(self._path, member), "rb") as file:
            return file.read()

    def map_weights(self) -> np.ndarray:
        with _readable(), open(os.path.join(self._path, WEIGHTS), "rb") as file:
            return _map(file, 0, self.size(WEIGHTS))

    def library_path(self) -> str | None:
        return os.path.join(self._path, LIBRARY)

    def close(self) -> None:
        pass


@contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except _MALFORMED as error:
        raise ArtifactError(
            f"is no readable artifact ({first_line(error)}): copy it again or compile the model "
            "again"
        ) from None


def _require(names: Iterable[str]) -> None:
    """Exactly the five members, each once."""
    found = sorted(names)
    if found == sorted(_NAMES):
        return
    for name in _NAMES:
        if found.count(name) != 1:
            problem = "holds twice" if name in found else "lacks"
            raise ArtifactError(f"is no graphkiln artifact: it {problem} {name}")
    strangers = [name for name in found if name not in _NAMES]
    raise ArtifactError(f"holds a member that does not belong there: {strangers[0]!r}")


def _map(file: BinaryIO, start: int, size: int) -> np.ndarray:
    """Bytes ``start .. start+size`` of a file; writable, because DLPack exports nothing else."""
    if size == 0:
        return np.empty(0, np.uint8)
    if start + size > os.fstat(file.fileno()).st_size:
        raise ArtifactError("ends before weights.bin does: the file is cut off, copy it again")
    slack = start % mmap.ALLOCATIONGRANULARITY
    with _readable():
        view = mmap.mmap(file.fileno(), size + slack, access=mmap.ACCESS_COPY, offset=start - slack)
    return np.frombuffer(view, np.uint8, size, slack)
