"""The end of the process while daemon threads still run models.

After Python has begun to shut down, it ends each thread that returns from compiled code at once, by
unwinding its stack, and C++ code on that stack then aborts the process. Therefore, at exit, runs in
other threads are waited for, and new ones do not begin.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, MutableSequence
from typing import Any
from weakref import WeakSet

_PATIENCE = 2.0
"""Seconds to wait for runs of other threads; a longer run is unlikely to end during shutdown."""

_ended = False
_pools: WeakSet[Pool] = WeakSet()


class Pool:
    """Instances of a session, each of which one thread uses at a time.

    ``idle`` lists those that no thread uses. A run takes one from the list, or makes one, and puts
    it back at its end.
    """

    def __init__(self) -> None:
        self.idle: list[Any] = []
        self._made: WeakSet[Any] = WeakSet()
        self._making: list[None] = []
        _pools.add(self)

    def make(self, factory: Callable[[], Any]) -> Any:
        """A new instance, which is in use from now on.

        At the end of the process, threads other than the main one block here for ever.
        """
        if _ended and threading.current_thread() is not threading.main_thread():
            threading.Event().wait()
        self._making.append(None)
        try:
            made = factory()
            self._made.add(made)
        finally:
            self._making.pop()
        return made

    def drain(self, deadline: float) -> None:
        """Take out all instances, each as it becomes idle, so that no new run finds one."""
        given_back, self.idle = self.idle, []
        home: list[Any] = []
        while True:
            _move(given_back, home)
            busy = self._making or len(home) < len(self._made)
            if not busy or time.monotonic() > deadline:
                return
            time.sleep(0.001)


def _move(source: MutableSequence[Any], target: MutableSequence[Any]) -> None:
    while source:
        target.append(source.pop())


@atexit.register
def _end() -> None:
    global _ended
    _ended = True
    deadline = time.monotonic() + _PATIENCE
    for pool in list(_pools):
        pool.drain(deadline)
