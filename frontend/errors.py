"""What goes wrong on the way in: one error that lists every blocker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import GraphkilnError

_LONGEST = 400


@dataclass(frozen=True)
class Blocker:
    """One reason why a model cannot be imported; ``node`` and ``op`` are empty for the file."""

    reason: str
    node: str = ""
    op: str = ""

    def __str__(self) -> str:
        reason = shorten(self.reason)
        if not self.op:
            return reason
        return f"node '{shorten(self.node, 120)}' ({shorten(self.op, 80)}): {reason}"


class FrontendError(GraphkilnError):
    """A model cannot be imported.

    ``file`` is the model's name, ``blockers`` every reason found. ``node``, ``op`` and ``reason``
    are those of the first blocker. The text has one line per blocker.
    """

    def __init__(self, file: str, blockers: Sequence[Blocker]) -> None:
        self.file = file
        self.blockers = list(blockers)
        super().__init__("\n".join(f"{file}: {b}" for b in self.blockers))

    @property
    def node(self) -> str:
        return self.blockers[0].node

    @property
    def op(self) -> str:
        return self.blockers[0].op

    @property
    def reason(self) -> str:
        return self.blockers[0].reason


class ImportFault(Exception):
    """A reason found inside the frontend; becomes a blocker where node and file are known."""


def shorten(text: str, limit: int = _LONGEST) -> str:
    """Printable text on one line, cut in the middle where it is longer than ``limit``."""
    line = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    if len(line) <= limit:
        return line
    half = limit // 2
    return f"{line[:half]} ... {line[-half:]}"


def text(value: str | bytes) -> str:
    """A string field of a message; protobuf hands over bytes where it is not UTF-8.

    Raises :class:`ImportFault` for those.
    """
    if isinstance(value, bytes):
        raise ImportFault(f"a name that is not UTF-8: {value[:40]!r}")
    return value
