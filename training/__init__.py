"""Graphs in PyTorch: ``graphkiln.torch.module(graph)`` runs and trains one.

What is here needs the ``distill`` extra.
"""

from .errors import CheckpointError, MissingTorchError, TrainingError

try:
    import torch as torch
except ImportError as e:
    raise MissingTorchError("training needs PyTorch: pip install 'graphkiln[distill]'") from e

from .emit import Call, emits, emitted_ops
from .module import Module, module
from .weights import Weight, weights_of

__all__ = [
    "Call", "CheckpointError", "MissingTorchError", "Module", "TrainingError", "Weight",
    "emits", "emitted_ops", "module", "weights_of",
]  # fmt: skip
