"""What goes wrong on the way in: one error that lists every blocker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..errors import Blocker, GraphkilnError, shorten


class FrontendError(GraphkilnError):
    """A model cannot be imported; ``blockers`` are all the reasons found, one line each."""

    def __init__(self, file: str, blockers: Sequence[Blocker]) -> None:
        super().__init__(*(replace(b, file=file, reason=shorten(b.reason)) for b in blockers))


class ImportFault(GraphkilnError):
    """A reason found inside the frontend; becomes a blocker where node and file are known."""


def text(value: str | bytes) -> str:
    """A string field of a message; protobuf hands over bytes where it is not UTF-8.

    Raises :class:`ImportFault` for those.
    """
    if isinstance(value, bytes):
        raise ImportFault(f"a name that is not UTF-8: {value[:40]!r}")
    return value


__all__ = ["Blocker", "FrontendError", "ImportFault", "shorten", "text"]
