"""Brings the compiled library of an artifact into the process.

The dynamic linker loads files only, so the library is written to a private temporary file, which is
unlinked as soon as it is loaded. Where that cannot be done (the temporary folder is not writable or
mounted ``noexec``), an anonymous file in memory takes its place. The file of an artifact that is a
folder is not loaded directly either, since it could have been replaced after it was checked.
"""

from __future__ import annotations

import itertools
import os
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import guard, threads
from .errors import ArtifactError, first_line
from .tvm_runtime import global_function

# By name, because the general loader goes by the path's suffix.
_LOADER = "ffi.Module.load_from_file.so"

_lock = threading.Lock()
# Libraries stay loaded, so equal ones are loaded once; the key is the SHA-256.
_modules: dict[str, Any] = {}
_serial = itertools.count(1)


def load_library(data: bytes, digest: str) -> Any:
    """The library as a `tvm_ffi.Module`; ``digest`` is the SHA-256 of its content.

    Raises ArtifactError where it cannot be loaded.
    """
    with _lock:
        module = _modules.get(digest)
        if module is None:
            module = _load_data(data)
            threads.adopt(module)
            _modules[digest] = module
        return module


def _open(path: str) -> Any:
    try:
        module = global_function(_LOADER)(path, "")
        if guard.ACTIVE is not None:
            guard.ACTIVE.take_over_workspaces(path)
        return module
    except (RuntimeError, OSError) as error:
        raise ArtifactError(
            f"the compiled library cannot be loaded ({first_line(error)})"
        ) from None


def _load_data(data: bytes) -> Any:
    try:
        with _temporary_file(data) as path:
            return _open(path)
    except (ArtifactError, OSError) as error:
        reason = first_line(error)
    try:
        with _memory_file(data) as path:
            return _open(path)
    except (ArtifactError, OSError):
        raise ArtifactError(
            f"{reason}: set TMPDIR to a folder that allows writing and executing"
        ) from None


@contextmanager
def _temporary_file(data: bytes) -> Iterator[str]:
    descriptor, path = tempfile.mkstemp(prefix="graphkiln-", suffix=".so")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        yield path
    finally:
        os.unlink(path)


@contextmanager
def _memory_file(data: bytes) -> Iterator[str]:
    with os.fdopen(os.memfd_create("graphkiln"), "wb") as file:
        file.write(data)
        file.flush()
        # The linker loads a path once, and descriptors are reused: each load gets another spelling.
        yield "/proc/self/" + "./" * next(_serial) + f"fd/{file.fileno()}"
