"""The kernel cache: object files that are kept between compilations.

The files become code that runs, so one is used only if no other user could have written it, and if
its content has the hash that it was written with. A cache that cannot be used is no error: the
kernel is built again.
"""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

_MAGIC = b"graphkiln object 1\n"
_DIGEST = hashlib.sha256().digest_size
_LARGEST = 1 << 30


def cache_place() -> Path | None:
    """The folder of what is kept between compilations; None where nothing is.

    It is ``$GRAPHKILN_CACHE``, by default ``~/.cache/graphkiln``; empty means to keep nothing.
    """
    chosen = os.environ.get("GRAPHKILN_CACHE")
    if chosen is None:
        home = os.path.join(os.path.expanduser("~"), ".cache")
        chosen = os.path.join(os.environ.get("XDG_CACHE_HOME") or home, "graphkiln")
    return Path(chosen) if chosen else None


class ObjectCache:
    """Object files on disk by kernel name, which holds a digest of all that they are built from.

    They lie below ``folder``, by default :func:`cache_place`; an empty one turns the cache off. The
    folder has mode 0700, and each file begins with the SHA-256 of its kernel's name and content.
    """

    def __init__(self, folder: str | None = None) -> None:
        place = cache_place() if folder is None else Path(folder) if folder else None
        self.folder = None if place is None else place / "kernels"

    def get(self, name: str) -> bytes | None:
        """The object of a kernel; None where it is not there, damaged, or somebody else's."""
        if self.folder is None or not _is_ours(self.folder):
            return None
        data = _read(self.folder / f"{name}.o")
        if data is None or not data.startswith(_MAGIC):
            return None
        digest, content = data[len(_MAGIC) :][:_DIGEST], data[len(_MAGIC) + _DIGEST :]
        return content if content and digest == _digest(name, content) else None

    def put(self, name: str, content: bytes) -> None:
        """Keep an object, whole or not at all; a cache that cannot be written is no error."""
        if self.folder is None:
            return
        temporary = self.folder / f".{name}.{os.getpid()}"
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_ours(self.folder):
                return
            _write(temporary, _MAGIC + _digest(name, content) + content)
            os.replace(temporary, self.folder / f"{name}.o")
        except OSError:
            _remove(temporary)


def _digest(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + content).digest()


def _is_ours(folder: Path) -> bool:
    """Is this a folder of the user's that nobody else can read or write?

    One of the user's that is open to others, as older versions left it, is closed first.
    """
    try:
        found = folder.stat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            return False
        if found.st_mode & 0o077:
            folder.chmod(0o700)
        return True
    except OSError:
        return False


def _read(path: Path) -> bytes | None:
    """The content of a file, None where it is no regular file of the user's.

    It is opened without blocking, since a pipe or a device in its place would hang.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        mine = stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
        if not mine or found.st_size > _LARGEST:
            return None
        with open(descriptor, "rb", closefd=False) as file:
            return file.read()
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _write(path: Path, data: bytes) -> None:
    """Write a new file, and wait until it has reached the disk."""
    _remove(path)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with open(os.open(path, flags, 0o600), "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _remove(path: Path) -> None:
    try:
        path.unlink()
    except OSError:
        pass


__all__ = ["ObjectCache", "cache_place"]
