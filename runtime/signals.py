"""Handling of signals during long runs.

Python runs handlers of signals between its own instructions, so not while compiled code runs.
Therefore compiled code polls a word of memory between two kernels; if it is not zero, it has Python
run its handlers, and stops if one of them raises.

The word is written by the part of CPython that runs as soon as a signal comes: it writes the
signal's number to the file descriptor given to `signal.set_wakeup_fd`. Here that is a file in
memory, which is mapped, and the word is its first.

Only the main thread handles signals, so only its runs are watched. If the descriptor was set by
other code, such as an event loop, it is set again after the run, and gets the signals that came.
"""

from __future__ import annotations

import mmap
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ..contract import SPELLED_OUT
from .values import import_array

BRIEF = 0.02
"""Seconds; runs that take no longer are not watched, as Python handles signals soon enough."""


class Word(NamedTuple):
    """The word that compiled code polls: its address, and an int64[1] tensor of it."""

    address: int
    tensor: Any

    @staticmethod
    def of(words: np.ndarray) -> Word:
        """The first word of an array."""
        return Word(words.ctypes.data, import_array(words[:1]))


QUIET = Word.of(np.zeros(1, np.int64))
"""A word that stays zero."""

LOUD = Word.of(np.full(1, SPELLED_OUT, np.int64))
"""A word that has loops run kernel by kernel."""


class _Mailbox:
    """The file in memory that signals are written to, and its first word."""

    def __init__(self) -> None:
        self.descriptor = os.memfd_create("graphkiln-signals", os.MFD_CLOEXEC)
        os.set_blocking(self.descriptor, False)
        os.ftruncate(self.descriptor, mmap.PAGESIZE)
        self._words = np.frombuffer(mmap.mmap(self.descriptor, mmap.PAGESIZE), np.int64)
        self.word = Word.of(self._words)

    def empty(self) -> bytes:
        """Clear the file; returns the numbers of the signals that came."""
        if not self._words[0]:
            return b""
        came = os.pread(self.descriptor, os.lseek(self.descriptor, 0, os.SEEK_CUR), 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        self._words[:] = 0
        return came


_mailbox: _Mailbox | None = None


@contextmanager
def watched() -> Iterator[Word]:
    """A context with a word that becomes nonzero when a signal comes that Python handles."""
    if threading.current_thread() is not threading.main_thread():
        yield QUIET
        return
    mailbox = _opened()
    before = None
    try:
        before = signal.set_wakeup_fd(mailbox.descriptor, warn_on_full_buffer=False)
        yield mailbox.word
    finally:
        if before is not None:
            signal.set_wakeup_fd(before)
            _forward(mailbox.empty(), before)


def _opened() -> _Mailbox:
    global _mailbox
    if _mailbox is None:
        _mailbox = _Mailbox()
    return _mailbox


def _forward(signals: bytes, descriptor: int) -> None:
    if signals and descriptor >= 0:
        try:
            os.write(descriptor, signals)
        except OSError:
            pass  # its buffer is full, so that its owner is awake anyway


def _after_fork() -> None:
    global _mailbox
    _mailbox = None  # the memory is shared with the parent


os.register_at_fork(after_in_child=_after_fork)
