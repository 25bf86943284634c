"""The thread pool of compiled kernels as an object file: ``pool.c``, by the linker's C compiler."""

from __future__ import annotations

import hashlib
import subprocess
import tempfile
from pathlib import Path

from ..contract import POOL, THREADS
from ..errors import GraphkilnError
from .objects import ObjectCache

FUNCTIONS = (POOL, THREADS)
"""Functions of a library that :mod:`graphkiln.runtime.threads` calls."""

_SOURCE = Path(__file__).with_name("pool.c")
_OPTIONS = ("-std=gnu11", "-O2", "-fPIC", "-c")


class PoolError(GraphkilnError):
    """The C compiler cannot be run, or cannot compile the pool: it may lack header files."""


def pool_object(driver: str, arch: str, cache_folder: str | None = None) -> bytes:
    """The object file for an architecture, from the cache where it is there.

    ``driver`` is a C compiler for it. Raises :class:`PoolError` where it fails.
    """
    source = _SOURCE.read_bytes()
    content = "\0".join((arch, *_OPTIONS)).encode() + b"\0" + source
    name = f"pool_{hashlib.sha256(content).hexdigest()[:16]}"
    cache = ObjectCache(cache_folder)
    held = cache.get(name)
    if held is None:
        try:
            held = _compiled(driver)
        except OSError as e:
            raise PoolError(f"the C compiler {driver} cannot be used: {e.strerror or e}") from e
        cache.put(name, held)
    return held


def _compiled(driver: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "pool.o"
        command = [driver, *_OPTIONS, str(_SOURCE), "-o", str(out)]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            said = [line for line in run.stderr.splitlines() if "error:" in line]
            reason = (said or run.stderr.splitlines() or ["it gives no reason"])[0].strip()
            raise PoolError(f"the C compiler {driver} cannot compile {_SOURCE.name}: {reason}")
        return out.read_bytes()
