"""Work in forked processes, each with a time limit: a crash or a hang costs one item only."""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any, Generic, TypeVar

from graphkiln.codegen.child import die_with_parent

T = TypeVar("T")


@dataclass(frozen=True)
class Ended(Generic[T]):
    """How one item ended: ``answer`` is what the work returned, None after a timeout, and the exit
    code after a crash.

    ``status`` is ``done``, ``crash`` or ``timeout``, ``seconds`` of the clock are from start to
    end. What the work took of the processor, in seconds, and most of its memory at a time, in
    bytes, are known of what is done; both with the processes that the work started itself.
    """

    item: T
    status: str
    answer: Any
    seconds: float
    processor: float = 0
    resident: int = 0


def run_all(
    items: Sequence[T],
    work: Callable[[T], Any],
    *,
    jobs: int,
    limit: float,
    memory: int = 0,
    processor: int = 0,
) -> Iterator[Ended[T]]:
    """Do ``work(item)`` in a process of its own, ``jobs`` at once, ``limit`` seconds each.

    ``memory`` limits a process's address space, in bytes, and ``processor`` its processor time,
    in seconds, which says the same on a busy machine. Items come back in the order in which they
    end.
    """
    context = multiprocessing.get_context("fork")
    todo = list(reversed(items))
    running: dict[Any, tuple[T, Any, float]] = {}
    while todo or running:
        while todo and len(running) < jobs:
            item = todo.pop()
            receiver, sender = context.Pipe(duplex=False)
            process = context.Process(
                target=_child, args=(work, item, sender, memory, processor), daemon=True
            )
            process.start()
            sender.close()
            running[receiver] = item, process, time.monotonic()
        ready = set(wait(list(running), timeout=0.2))
        late = {c for c, (_, _, start) in running.items() if time.monotonic() - start > limit}
        for connection in ready | late:
            item, process, start = running.pop(connection)
            yield _finish(item, process, connection, connection in ready, start)


def mapped() -> int:
    """Bytes of address space that this process has reserved, which a forked one starts with."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[0]
    return int(pages) * resource.getpagesize()


def _child(
    work: Callable[[T], Any], item: T, answer: Connection, memory: int, processor: int
) -> None:
    die_with_parent()
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    if memory:
        resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    if processor:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (processor, processor + 1))
    result = work(item)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    seconds = sum(u.ru_utime + u.ru_stime for u in used)
    answer.send((result, seconds, max(u.ru_maxrss for u in used) << 10))


def _finish(item: T, process: Any, connection: Any, answered: bool, start: float) -> Ended[T]:
    status, answer, processor, resident = "timeout", None, 0.0, 0
    if answered:
        try:
            answer, processor, resident = connection.recv()
            status = "done"
        except EOFError:
            process.join()
            if process.exitcode != -signal.SIGXCPU:
                status, answer = "crash", process.exitcode
    process.kill()
    process.join()
    connection.close()
    return Ended(item, status, answer, time.monotonic() - start, processor, resident)
