"""Errors of import: one error that lists every blocker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..errors import Blocker, GraphkilnError, shorten


class FrontendError(GraphkilnError):
    """A model cannot be imported; ``blockers`` are all reasons that were found, a line for each."""

    def __init__(self, file: str, blockers: Sequence[Blocker]) -> None:
        super().__init__(*(replace(b, file=file, reason=shorten(b.reason)) for b in blockers))


class ImportFault(GraphkilnError):
    """A reason found in the frontend; it becomes a blocker once node and file are known."""


def text(value: str | bytes) -> str:
    """A string field of a message.

    Raises :class:`ImportFault` if it is not UTF-8, for which protobuf returns bytes.
    """
    if isinstance(value, bytes):
        raise ImportFault(f"a name that is not UTF-8: {value[:40]!r}")
    return value


__all__ = ["Blocker", "FrontendError", "ImportFault", "shorten", "text"]
