"""The end of the process, when daemon threads still run models.

Once Python shuts down, a thread that comes back from compiled code is ended on the spot, which C++
code on its stack answers by aborting the process. So at exit, runs of other threads come to their
end first, and none begins any more.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections.abc import Callable, MutableSequence
from typing import Any
from weakref import WeakSet

_PATIENCE = 2.0
"""Seconds to wait for runs. One that takes longer hardly ends in the moment that is left."""

_ended = False
_pools: WeakSet[Pool] = WeakSet()


class Pool:
    """What runs models, each used by one thread at a time; ``idle`` lists what no thread uses.

    A thread takes from the list and gives back to it.
    """

    def __init__(self) -> None:
        self.idle: list[Any] = []
        self._made: WeakSet[Any] = WeakSet()
        self._making: list[None] = []
        _pools.add(self)

    def make(self, factory: Callable[[], Any]) -> Any:
        """One more, which is in use.

        Where the process ends, threads other than the main one wait for it for ever.
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
        """Takes all out as they become idle, so that nobody finds one."""
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
