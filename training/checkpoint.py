"""Checkpoints: the state of a training in one file, complete at any time.

A file holds tensors, numbers and texts in PyTorch's format, and is read without unpickling anything
else. It is written beside its place and renamed.
"""

from __future__ import annotations

import os
import pickle
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from .errors import CheckpointError

_HEAD = "graphkiln checkpoint"
_VERSION = 1
_NAME = "checkpoint.pt"


@dataclass(frozen=True)
class Checkpoint:
    """The folder of one training's checkpoint (None: nothing is kept); ``key`` describes it."""

    folder: Path | None
    key: str

    @property
    def path(self) -> Path | None:
        """The file."""
        return None if self.folder is None else self.folder / _NAME

    def load(self) -> Mapping[str, Any] | None:
        """The state that was kept, or None where there is none.

        Raises :class:`CheckpointError` for a file of another kind, and for one of another training.
        """
        path = self.path
        if path is None or not path.exists():
            return None
        try:
            found = torch.load(path, map_location="cpu", weights_only=True)
        except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as e:
            raise CheckpointError("is no checkpoint", file=str(path)) from e
        if not isinstance(found, dict) or found.get(_HEAD) != _VERSION:
            raise CheckpointError("is no checkpoint of this version", file=str(path))
        if found.get("of") != self.key:
            raise CheckpointError(
                "is of another training: other models, samples or options; name another folder",
                file=str(path),
            )
        state: Mapping[str, Any] = found["state"]
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Keep a state. Raises :class:`CheckpointError` where it cannot be written."""
        path = self.path
        if path is None:
            return
        place = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with place.open("xb") as file:
                torch.save({_HEAD: _VERSION, "of": self.key, "state": dict(state)}, file)
            place.replace(path)
        except OSError as e:
            raise CheckpointError(f"cannot be written: {e.strerror or e}", file=str(path)) from e
        finally:
            with suppress(OSError):
                place.unlink(missing_ok=True)


__all__ = ["Checkpoint"]
