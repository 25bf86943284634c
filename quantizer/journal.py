"""What a quantization has found so far, in a file, so that one that was stopped can go on."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import UsageError
from .files import write_text

_HEAD = "graphkiln journal"
_VERSION = 1
_OFTEN = 5.0
"""Seconds between two writes of what is still under way."""


class JournalError(UsageError):
    """A file of another kind stands where a journal is to be, or it cannot be written."""


class Journal:
    """Named results as JSON, of the work that ``key`` describes: another key starts anew.

    A file is complete at any time: it is written beside its place and renamed.
    """

    def __init__(self, path: Path | None, key: str) -> None:
        """``path`` None: nothing is kept. Raises :class:`JournalError` for a file that is none."""
        self._path, self._key = path, key
        self._written = 0.0
        self._entries: dict[str, Any] = {}
        if path is not None and path.exists():
            found = _read(path)
            if found.get("of") == key:
                self._entries = dict(found["entries"])

    def load(self, name: str) -> Any:
        """A result, or None."""
        return self._entries.get(name)

    def save(self, name: str, value: Any) -> None:
        """Keep a result."""
        if self._path is not None:
            self._entries[name] = value
            self._written = time.monotonic()
            _write(self._path, {_HEAD: _VERSION, "of": self._key, "entries": self._entries})

    def is_due(self) -> bool:
        """Were the last seconds without a write? Then it is time for what is still under way."""
        return self._path is not None and time.monotonic() - self._written > _OFTEN


def _read(path: Path) -> Mapping[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as e:
        raise JournalError(f"is no journal: {e}", file=str(path)) from e
    is_one = isinstance(found, dict) and found.get(_HEAD) == _VERSION
    if not is_one or not isinstance(found.get("entries"), dict):
        raise JournalError(f"does not begin with {_HEAD!r}: {_VERSION}", file=str(path))
    return found


def _write(path: Path, content: Mapping[str, Any]) -> None:
    try:
        write_text(path, json.dumps(content))
    except OSError as e:
        raise JournalError(f"cannot be written: {e.strerror or e}", file=str(path)) from e


__all__ = ["Journal", "JournalError"]
