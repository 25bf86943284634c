"""The installed command, and how one run of it ended."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

COMMAND = Path(sys.executable).parent / "graphkiln"
MODELS = Path(__file__).parent.parent / "models"


@dataclass(frozen=True)
class Outcome:
    """How a command ended."""

    code: int
    out: str
    err: str

    def fails(self, *parts: str, code: int = 1) -> None:
        """One clear error that holds every part, and nothing of Python's."""
        assert self.code == code, self
        assert "Traceback" not in self.err and "internal error" not in self.err, self
        assert self.err.strip(), self
        for part in parts:
            assert part in self.err, self


Run: TypeAlias = Callable[..., Outcome]
