"""Processes that compile kernels: one imports the compiler, the workers are forks of it.

Importing TVM takes longer than a small kernel, and a fork of a process that has it takes none of
that. The caller's own process is not forked: it may hold threads and locks.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from .child import start_child

if TYPE_CHECKING:
    from ..targets.base import Kernel, Target


IN_PROCESS_LIMIT = 6
"""Builds of at most this many kernels are not worth starting workers for."""


@dataclass
class Result:
    """The object file of a kernel, or why there is none."""

    name: str
    content: bytes | None
    reason: str


class Workers:
    """At most ``count`` processes that compile kernels; one that dies takes its kernel with it.

    A context: at its end the processes are ended, whatever they do.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._nursery: _Nursery | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._nursery is not None:
            self._nursery.close()

    def start(self) -> None:
        """Begin to import the compiler, if that has not begun, and return at once.

        To be called by a thread that lives until the end of the context: Linux ends a child with
        the thread that started it.
        """
        self._nursery = self._nursery or _Nursery()

    def compile(self, kernels: Mapping[str, Kernel], target: Target) -> Iterator[Result]:
        """Each kernel's result, in the order in which they are ready."""
        self.start()
        assert self._nursery is not None
        tasks: queue.SimpleQueue[tuple[str, Kernel] | None] = queue.SimpleQueue()
        results: queue.SimpleQueue[Result] = queue.SimpleQueue()
        count = min(self._count, len(kernels))
        for task in (*kernels.items(), *[None] * count):
            tasks.put(task)
        for _ in range(count):
            given = (self._nursery, target, tasks, results)
            threading.Thread(target=_serve, args=given, daemon=True).start()
        for _ in kernels:
            yield results.get()


def _serve(
    nursery: _Nursery,
    target: Target,
    tasks: queue.SimpleQueue[tuple[str, Kernel] | None],
    results: queue.SimpleQueue[Result],
) -> None:
    """Give tasks to a worker up to the first None, and to another where it ended."""
    worker: _Worker | None = None
    while (task := tasks.get()) is not None:
        name, spec = task
        try:
            worker = worker or nursery.worker()
            results.put(worker.ask(target, name, spec))
        except (OSError, ValueError) as e:
            if worker is not None:
                worker.close()
                worker = None
            results.put(Result(name, None, f"the compiler process stopped ({e})"))
    if worker is not None:
        worker.close()


class _Nursery:
    """The process that forks workers."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            # Its threads would not be in the forks, which have one core each.
            alone = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
            self._process = start_child("graphkiln.codegen.worker", alone, stdin=theirs.fileno())
        self._lock = threading.Lock()

    def worker(self) -> _Worker:
        """A new worker; raises ``OSError`` where the process has ended."""
        with _pipe() as (requests, to_worker), _pipe() as (from_worker, replies):
            with self._lock:
                socket.send_fds(self._socket, [b"w"], [requests, replies])
            return _Worker(os.fdopen(os.dup(to_worker), "wb"), os.fdopen(os.dup(from_worker), "rb"))

    def close(self) -> None:
        """End the process and its workers, whatever they do."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait()
        self._socket.close()


@contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    """A pipe's two ends, closed at the end of the context."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)


class _Worker:
    """The pipes to one worker."""

    def __init__(self, requests: IO[bytes], replies: IO[bytes]) -> None:
        self._requests, self._replies = requests, replies

    def ask(self, target: Target, name: str, spec: Kernel) -> Result:
        """What the worker makes of a kernel; raises ``OSError`` where it ends before."""
        request = {"name": name, "role": spec.role, "op": spec.op, "node": spec.node,
                   "text": spec.text, "target": target.spec}  # fmt: skip
        self._requests.write(json.dumps(request).encode() + b"\n")
        self._requests.flush()
        return read_reply(self._replies, name)

    def close(self) -> None:
        """Close the pipes; a worker ends where its requests do."""
        for pipe in (self._requests, self._replies):
            try:
                pipe.close()
            except OSError:  # what was not sent is lost with the worker
                pass


def read_reply(stream: IO[bytes], name: str) -> Result:
    """One reply: a JSON line with the object's size or an error, then the object's bytes."""
    line = stream.readline()
    if not line:
        raise OSError("no reply")
    head = json.loads(line)
    if "error" in head:
        return Result(name, None, head["error"])
    content = stream.read(head["size"])
    if len(content) != head["size"]:
        raise OSError("short reply")
    return Result(name, content, "")
