"""A child process that answers questions, and is replaced when it ends or hangs."""

from __future__ import annotations

import multiprocessing
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from graphkiln.codegen.child import die_with_parent

LIFE = 4_000
"""Answers a child gives before another takes its place: loaded libraries are never given back."""


@dataclass(frozen=True)
class Lost:
    """No answer: ``status`` is ``crash`` or ``timeout``, ``code`` the exit code of a crash."""

    status: str
    code: int | None = None


class Child:
    """Forks a process that calls ``make()`` once, and then its result on each question.

    ``data`` limits what the process may allocate, in bytes (0: no limit). After a :class:`Lost`
    the next question goes to a fresh process.
    """

    def __init__(self, make: Callable[[], Callable[[Any], Any]], data: int = 0) -> None:
        self._make, self._data = make, data
        self._connection: Connection | None = None
        self._process: Any = None
        self._left = 0

    def ask(self, question: Any, limit: float) -> Any:
        """The answer, or Lost if there is none within ``limit`` seconds."""
        connection = self._connection or self._start()
        self._left -= 1
        try:
            connection.send(question)
            if not connection.poll(limit):
                self.end()
                return Lost("timeout")
            return connection.recv()
        except (EOFError, ConnectionError):
            self._process.join()
            code = self._process.exitcode
            self.end()
            return Lost("crash", code)

    def renew(self) -> None:
        """A good moment for a fresh process, if this one has lived long or keeps much memory."""
        if self._left <= 0 or self._data and self._held() > self._data // 4:
            self.end()

    def _held(self) -> int:
        """Bytes that the process has allocated: what freed models leave behind counts."""
        if self._connection is None:
            return 0
        try:
            fields = Path(f"/proc/{self._process.pid}/statm").read_text().split()
        except OSError:
            return 0
        return int(fields[5]) * resource.getpagesize()

    def end(self) -> None:
        """Ends the process; a later question starts another."""
        if self._connection is not None:
            self._process.kill()
            self._process.join()
            self._connection.close()
            self._connection = None

    def _start(self) -> Connection:
        context = multiprocessing.get_context("fork")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(
            target=_serve, args=(self._make, theirs, self._data), daemon=True
        )
        self._process.start()
        theirs.close()
        self._left = LIFE
        return self._connection


def _serve(make: Callable[[], Callable[[Any], Any]], connection: Connection, data: int) -> None:
    die_with_parent()
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    if data:
        resource.setrlimit(resource.RLIMIT_DATA, (data, data))
    answer = make()
    while True:
        try:
            question = connection.recv()
        except EOFError:
            return
        connection.send(answer(question))
