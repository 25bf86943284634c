"""How nodes run in PyTorch: an emitter for each op, which registers itself.

An emitter gets a :class:`Call` and gives the node's results as tensors, computed by functions that
PyTorch differentiates. Files of ``training/ops`` hold those of the built-in ops; a plugin registers
its own by the same decorator:

    @emits("my.domain.Square")
    def square(call: Call) -> torch.Tensor:
        return call[0] * call[0]

Integers, such as sizes and indices, are tensors as well, and carry no gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

import torch

from ..ir.discovery import load_modules
from ..ir.graph import Graph, Node
from ..ir.registry import attribute
from ..ir.types import DType, TensorType
from .errors import TrainingError
from .tensors import torch_dtype

Tensor: TypeAlias = torch.Tensor
RunBody: TypeAlias = "Callable[[Graph, Sequence[Any]], list[Any]]"


@dataclass(frozen=True)
class Call:
    """One run of a node: its attributes (dims have values) and inputs (None: omitted).

    ``run`` runs a graph that is an attribute on given inputs.
    """

    node: Node
    inputs: Sequence[Tensor | None]
    run: RunBody

    def attr(self, name: str) -> Any:
        """An attribute, or its op's default, or None."""
        return attribute(self.node, name)

    def __getitem__(self, index: int) -> Tensor:
        """Input ``index``, which the op requires."""
        found = self.get(index)
        if found is None:
            raise TrainingError(f"input {index} is omitted", at=self.node)
        return found

    def get(self, index: int) -> Tensor | None:
        """Input ``index``, or None."""
        return self.inputs[index] if index < len(self.inputs) else None

    def ints(self, index: int) -> list[int] | None:
        """The elements of an input of integers, or None where it is omitted."""
        found = self.get(index)
        return None if found is None else [int(v) for v in found.reshape(-1).tolist()]

    @property
    def present(self) -> list[Tensor]:
        """All inputs that are given."""
        return [t for t in self.inputs if t is not None]

    @property
    def dtype(self) -> torch.dtype:
        """The element type of the first result."""
        return torch_dtype(self.element)

    @property
    def element(self) -> DType:
        """The element type of the first result, as the IR names it."""
        t = self.node.outputs[0].type
        if not isinstance(t, TensorType):
            raise TrainingError(f"its result is a {t}, not a tensor", at=self.node)
        return t.dtype


Emitter: TypeAlias = "Callable[[Call], Any]"
"""Gives the node's result, or a list of its results."""


@dataclass(frozen=True)
class Emission:
    """What is known of an op: its emitter, and the inputs that hold weights where constant.

    With ``vectors``, only constants with a single axis of more than one element count as weights:
    an addition's bias does, but not the mask that it adds.
    """

    emit: Emitter
    weights: frozenset[int]
    vectors: bool


_EMISSIONS: dict[str, Emission] = {}


def emits(
    *keys: str, weights: Iterable[int] = (), vectors: bool = False
) -> Callable[[Emitter], Emitter]:
    """Decorator: register the function as the emitter of the ops ``keys``.

    ``weights`` and ``vectors`` are as in :class:`Emission`. Raises ``ValueError`` for an op that
    has one.
    """

    def register(emitter: Emitter) -> Emitter:
        for key in keys:
            if key in _EMISSIONS:
                raise ValueError(f"op {key} has an emitter already")
            _EMISSIONS[key] = Emission(emitter, frozenset(weights), vectors)
        return emitter

    return register


@cache
def _load() -> None:
    """Load the files that register the built-in emitters (once)."""
    load_modules(f"{__package__}.ops")


def emission(key: str) -> Emission | None:
    """What is known of the op, or None."""
    _load()
    return _EMISSIONS.get(key)


def emitted_ops() -> list[str]:
    """The keys of all ops that run in PyTorch, sorted."""
    _load()
    return sorted(_EMISSIONS)


__all__ = ["Call", "Emission", "Emitter", "Tensor", "emission", "emits", "emitted_ops"]
