"""Long-lived child processes: one graph after another, and a new child after a crash or a hang."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Generic, TypeVar

from graphkiln.codegen.child import die_with_parent

T = TypeVar("T")

LIFE = 400
"""Items a child does before another takes its place: loaded libraries are never given back."""


@dataclass(frozen=True)
class Done(Generic[T]):
    """An item and its answer; ``status`` is ``done``, ``crash`` or ``timeout``."""

    item: T
    status: str
    answer: Any
    seconds: float


class _Child(Generic[T]):
    def __init__(self, work: Callable[[T], Any]) -> None:
        context = multiprocessing.get_context("fork")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(work, theirs), daemon=True)
        self.process.start()
        theirs.close()
        self.item: T | None = None
        self.start = 0.0
        self.left = LIFE

    def give(self, item: T) -> None:
        self.item, self.start = item, time.monotonic()
        self.left -= 1
        self.connection.send(item)

    def end(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def _serve(work: Callable[[T], Any], connection: Connection) -> None:
    die_with_parent()
    silent = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(silent, stream)
    while True:
        try:
            item = connection.recv()
        except EOFError:
            return
        connection.send(work(item))


def run(
    items: Iterator[T], work: Callable[[T], Any], *, jobs: int, limit: float
) -> Iterator[Done[T]]:
    """``work(item)`` for all items, ``jobs`` at once, each within ``limit`` seconds."""
    children: list[_Child[T]] = []
    try:
        children = [_Child(work) for _ in range(jobs)]
        idle, busy = list(children), {}
        items = iter(items)
        exhausted = False
        while busy or not exhausted:
            while idle and not exhausted:
                try:
                    item = next(items)
                except StopIteration:
                    exhausted = True
                    break
                child = idle.pop()
                if child.left <= 0 or not child.process.is_alive():
                    child = _replaced(children, child, work)
                child.give(item)
                busy[child.connection] = child
            now = time.monotonic()
            ready = set(wait(list(busy), timeout=0.2))
            late = {c for c, child in busy.items() if now - child.start > limit} - ready
            for connection in ready | late:
                child = busy.pop(connection)
                done = _finish(child, connection in ready)
                if done.status != "done":
                    child = _replaced(children, child, work)
                idle.append(child)
                yield done
    finally:
        for child in children:
            child.end()


def _replaced(children: list[_Child[T]], child: _Child[T], work: Callable[[T], Any]) -> _Child[T]:
    child.end()
    fresh = _Child(work)
    children[children.index(child)] = fresh
    return fresh


def _finish(child: _Child[T], answered: bool) -> Done[T]:
    status, answer = "timeout", None
    if answered:
        try:
            status, answer = "done", child.connection.recv()
        except (EOFError, ConnectionResetError):
            child.process.join()
            status, answer = "crash", child.process.exitcode
    assert child.item is not None
    return Done(child.item, status, answer, time.monotonic() - child.start)
