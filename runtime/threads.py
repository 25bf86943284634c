"""How many threads a compiled model uses.

Every library contains a thread pool (``codegen/pool.c`` says how it works), and all libraries of a
process use the pool of the one that was loaded first. The pool starts workers when a parallel loop
first needs them; with one thread there are none. How many threads a loop may use is set for the
calling thread, before each run. Workers are not pinned to cores, and the affinity of the calling
thread stays as it is.
"""

from __future__ import annotations

import os
import threading
from typing import Any

from ..contract import MOST_THREADS, POOL, THREADS
from ..machine import usable_cores
from .errors import ArtifactError, InputError

VARIABLE = "GRAPHKILN_NUM_THREADS"
_RANGE = f"a whole number from 1 to {MOST_THREADS}"


class _Caller(threading.local):
    """The number of threads that was last set for the calling thread."""

    threads = 1


_caller = _Caller()
_pool: int = 0
_set_threads: Any = None


def adopt(library: Any) -> None:
    """Have a library that was just loaded use the process's pool; callers hold a lock.

    Raises ArtifactError where it has none of its own.
    """
    global _pool, _set_threads
    try:
        use_pool = library.get_function(POOL, True)
    except AttributeError:
        raise ArtifactError(
            "it has no thread pool, as those of earlier versions: compile the model again"
        ) from None
    if _set_threads is None:
        set_threads = library.get_function(THREADS, True)
        _pool = use_pool(0)
        _set_threads = set_threads
    else:
        use_pool(_pool)


def resolve(threads: int | None) -> int:
    """The number of threads of a new session: the given one, the environment's, or the cores.

    Raises InputError for a number out of range.
    """
    asked = _validated(threads, "threads") if threads is not None else _from_environment()
    return asked or usable_cores()


def use(threads: int) -> None:
    """Makes the calling thread's next kernels run on so many threads."""
    if _caller.threads != threads:
        _set_threads(threads)
        _caller.threads = threads


def _from_environment() -> int | None:
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise InputError(f"{VARIABLE} must be {_RANGE}, it is {text!r}")
    return _validated(int(text), VARIABLE)


def _validated(threads: int, source: str) -> int:
    if type(threads) is not int or not 1 <= threads <= MOST_THREADS:
        raise InputError(f"{source} must be {_RANGE}, it is {threads!r}")
    return threads
