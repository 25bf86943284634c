"""How many threads a compiled model uses.

TVM keeps one pool of worker threads for every thread that calls a model, and builds it at the
first parallel kernel from two environment variables that it reads itself. So the number is a
property of the process: the first `load` fixes the most there can be (``threads=``, else
``GRAPHKILN_NUM_THREADS``, else the physical cores this process may use), and later sessions may
use fewer but never more. With one thread there are no workers at all. Where there are as many
threads as the calling thread may use cores, each worker keeps to a core of its own, so that none
waits behind the caller; ``TVM_BIND_THREADS=0`` forbids that. The calling thread's affinity is left
alone.

A process made by ``fork`` has no workers, so models run on one thread in the thread that forked.
"""

from __future__ import annotations

import os
import threading
import warnings
from typing import Any

from .errors import InputError
from .machine import usable_cores
from .tvm_runtime import global_function

VARIABLE = "GRAPHKILN_NUM_THREADS"
_MOST = 1024
# TVM's affinity modes: each worker has a core of those given, and the caller all of them, which
# it has anyway; its enum has no zero, which means: touch no affinity.
_OWN_CORES, _KEEP_AFFINITY = -2, 0

# How often an idle worker looks for work before it sleeps, a few milliseconds: long enough to be
# awake for the next run of a busy session, since one that wakes may share the caller's core for a
# whole run; not so long (TVM's own number is 300,000) that it takes a core from others.
_SPINS = "20000"

_BIND = "TVM_BIND_THREADS"

_lock = threading.Lock()
_maximum: int | None = None


class _Pool(threading.local):
    """What is known of the calling thread's own pool."""

    threads: int | None = None
    forked: bool = False


_pool = _Pool()


def resolve(threads: int | None) -> int:
    """The number of threads for a new session. Raises InputError where it cannot be had."""
    global _maximum
    asked = _validated(threads, "threads") if threads is not None else _from_environment()
    with _lock:
        if _maximum is None:
            limit = _from_environment() if threads is not None else None
            most = max(asked or usable_cores(), limit or 1)
            os.environ["TVM_NUM_THREADS"] = str(most)
            os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", _SPINS)
            # Last, as a signal's handler may raise anywhere.
            _maximum = most
        if threads is not None and threads > _maximum:
            raise InputError(
                f"threads={threads}, but the first model loaded in this process fixed the number "
                f"at {_maximum}: set {VARIABLE}={threads} before the process starts"
            )
        return min(asked or _maximum, _maximum)


def use(threads: int) -> None:
    """Makes the calling thread's next kernels run on so many threads."""
    if _pool.threads != threads:
        _configure(threads)


def _configure(threads: int) -> None:
    """Build the calling thread's pool, or change it."""
    wanted = 1 if _pool.forked else threads
    cores = sorted(os.sched_getaffinity(0))
    if os.environ.get(_BIND) != "0" and len(cores) == wanted > 1:
        _build(True, _OWN_CORES, wanted, [str(core) for core in cores])
    else:
        _build(False, _KEEP_AFFINITY, wanted)
    got = global_function("runtime.NumThreads")()
    if got < wanted:
        warnings.warn(
            f"this thread already used TVM with {got} threads, so graphkiln cannot have "
            f"{wanted}: set {VARIABLE} and TVM_NUM_THREADS before the process starts",
            RuntimeWarning,
            stacklevel=3,
        )
    _pool.threads = threads


def _build(bind: bool, *arguments: Any) -> None:
    """TVM obeys the mode only where the environment lets it bind, and else always binds first."""
    with _lock:
        given = os.environ.get(_BIND)
        try:
            os.environ[_BIND] = str(int(bind))
            global_function("runtime.config_threadpool")(*arguments)
        finally:
            if given is None:
                os.environ.pop(_BIND, None)
            else:
                os.environ[_BIND] = given


def _from_environment() -> int | None:
    text = os.environ.get(VARIABLE, "").strip()
    if not text:
        return None
    if not text.isdecimal():
        raise InputError(f"{VARIABLE} must be a whole number from 1 to {_MOST}, it is {text!r}")
    return _validated(int(text), VARIABLE)


def _validated(threads: int, source: str) -> int:
    if type(threads) is not int or not 1 <= threads <= _MOST:
        raise InputError(f"{source} must be a whole number from 1 to {_MOST}, it is {threads!r}")
    return threads


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()
    _pool.forked = True
    _pool.threads = None


os.register_at_fork(after_in_child=_after_fork)
