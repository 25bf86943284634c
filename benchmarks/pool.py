"""Work in forked processes, each with a time limit: a crash or a hang costs one item only."""

from __future__ import annotations

import multiprocessing
import os
import resource
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Ended(Generic[T]):
    """How one item ended: ``answer`` is what the work returned, None after a crash or a timeout.

    ``status`` is ``done``, ``crash`` or ``timeout``.
    """

    item: T
    status: str
    answer: Any
    seconds: float


def run_all(
    items: Sequence[T],
    work: Callable[[T], Any],
    *,
    jobs: int,
    limit: float,
    memory: int = 0,
) -> Iterator[Ended[T]]:
    """Do ``work(item)`` in a process of its own, ``jobs`` at once, ``limit`` seconds each.

    ``memory`` limits a process's address space, in bytes. Items come back in the order in which
    they end.
    """
    context = multiprocessing.get_context("fork")
    todo = list(reversed(items))
    running: dict[Any, tuple[T, Any, float]] = {}
    while todo or running:
        while todo and len(running) < jobs:
            item = todo.pop()
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(
                target=_child, args=(work, item, sender, memory), daemon=True
            )
            process.start()
            sender.close()
            running[receiver] = item, process, time.monotonic()
        ready = set(wait(list(running), timeout=0.2))
        late = {c for c, (_, _, start) in running.items() if time.monotonic() - start > limit}
        for connection in ready | late:
            item, process, start = running.pop(connection)
            yield _finish(item, process, connection, connection in ready, start)


def _child(work: Callable[[T], Any], item: T, answer: Connection, memory: int) -> None:
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    answer.send(work(item))


def _finish(item: T, process: Any, connection: Any, answered: bool, start: float) -> Ended[T]:
    status, answer = "timeout", None
    if answered:
        try:
            status, answer = "done", connection.recv()
        except EOFError:
            process.join()
            status, answer = "crash", process.exitcode
    process.kill()
    process.join()
    connection.close()
    return Ended(item, status, answer, time.monotonic() - start)
