"""Errors of training, which need no PyTorch to be imported."""

from __future__ import annotations

from ..errors import GraphkilnError, UsageError


class TrainingError(GraphkilnError):
    """A graph cannot be trained, or a step of its run as a PyTorch module fails."""


class MissingTorchError(UsageError):
    """PyTorch is not installed."""


class CheckpointError(UsageError):
    """A checkpoint cannot be read or written, or is of another training."""


__all__ = ["CheckpointError", "MissingTorchError", "TrainingError"]
