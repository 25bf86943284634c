"""Samples held as tensors, and batches of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

import numpy as np
import torch

from ..errors import UsageError
from .module import Module
from .tensors import to_tensor

Tensor = torch.Tensor


class BatchError(UsageError):
    """Samples do not make batches for a model."""


@dataclass(frozen=True)
class Batch:
    """Inputs by name, joined along their first axis, and the labels [n] where there are some.

    ``originals`` are the inputs that the teacher gets.
    """

    inputs: Mapping[str, Tensor]
    originals: Mapping[str, Tensor]
    labels: Tensor | None
    size: int

    def map(self, change: Callable[[Tensor], Tensor], originals: bool = True) -> Batch:
        """The batch with changed inputs; also those of the teacher, unless not ``originals``."""
        inputs = {name: change(t) for name, t in self.inputs.items()}
        return replace(self, inputs=inputs, originals=inputs if originals else self.originals)

    def every(self, size: int, first: int) -> Batch:
        """Every ``size``-th row, from ``first`` on."""
        rows = slice(first, None, size)
        return Batch(
            {name: t[rows] for name, t in self.inputs.items()},
            {name: t[rows] for name, t in self.originals.items()},
            None if self.labels is None else self.labels[rows],
            len(range(first, self.size, size)),
        )


@dataclass(frozen=True)
class SampleSet:
    """All samples: a tensor for each input, whose first axis runs over them.

    ``rows`` are the rows that a sample has in the batches of a model: 1, or the model's own batch
    size. ``labels`` are [samples * rows], or None.
    """

    inputs: Mapping[str, Tensor]
    labels: Tensor | None
    rows: int

    def __len__(self) -> int:
        return len(next(iter(self.inputs.values())))

    @classmethod
    def read(
        cls, samples: Iterable[Mapping[str, Any]], names: Sequence[str], labels: str | None
    ) -> SampleSet:
        """Hold samples of inputs ``names``, and the labels of that name, in memory.

        Raises :class:`BatchError` where there are none, where one lacks an array, or where shapes
        differ from sample to sample.
        """
        wanted = [*names, *([] if labels is None else [labels])]
        columns: dict[str, list[Tensor]] = {name: [] for name in wanted}
        for number, sample in enumerate(samples):
            for name in wanted:
                if name not in sample:
                    held = ", ".join(sample) or "nothing"
                    raise BatchError(f"sample {number} has no array {name!r}; it has {held}")
                columns[name].append(to_tensor(np.asarray(sample[name])))
        if not columns[wanted[0]]:
            raise BatchError("there are no samples to train on")
        inputs = {name: _stack(name, columns[name]) for name in names}
        rows = int(next(iter(inputs.values())).shape[1])
        found = None if labels is None else _labels(labels, columns[labels], rows)
        return cls(inputs, found, rows)

    def batch(self, picked: Tensor) -> Batch:
        """The samples of these numbers, joined."""
        inputs = {name: t[picked].flatten(0, 1) for name, t in self.inputs.items()}
        labels = None
        if self.labels is not None:
            labels = self.labels.reshape(-1, self.rows)[picked].flatten()
        return Batch(inputs, inputs, labels, len(picked) * self.rows)

    def batches(self, order: Tensor, size: int) -> Iterator[Batch]:
        """Batches of ``size`` rows, the last one perhaps smaller, in this order of samples."""
        for part in torch.split(order, max(1, size // self.rows)):
            yield self.batch(part)

    def count_batches(self, samples: int, size: int) -> int:
        """How many batches so many samples make."""
        return ceil(samples / max(1, size // self.rows))


def _stack(name: str, tensors: list[Tensor]) -> Tensor:
    shapes = {tuple(t.shape) for t in tensors}
    if len(shapes) > 1:
        told = " and ".join(str(list(s)) for s in sorted(shapes)[:2])
        raise BatchError(f"samples of {name!r} have other shapes, such as {told}: pad them to one")
    if not tensors[0].dim():
        raise BatchError(f"samples of {name!r} are scalars, which make no batches")
    return torch.stack(tensors)


def _labels(name: str, tensors: list[Tensor], rows: int) -> Tensor:
    found = torch.stack([t.reshape(-1) for t in tensors]).flatten()
    if found.is_floating_point() or len(found) != len(tensors) * rows:
        raise BatchError(f"labels {name!r} must be one integer for each sample")
    return found.long()


class Runner:
    """Runs a module on batches: at once, or in parts of the size that the model is fixed to."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self._fixed = module.batch_size

    def __call__(self, inputs: Mapping[str, Tensor], watched: Sequence[str]) -> list[Tensor]:
        """The values of the graph named in ``watched``, of a batch."""
        own = {name: inputs[name] for name in self.module.input_names if name in inputs}
        total = len(next(iter(own.values())))
        if self._fixed is None or self._fixed == total:
            return self._run(own, watched)
        parts = [
            self._run({n: t[i : i + self._fixed] for n, t in own.items()}, watched)
            for i in range(0, total, self._fixed)
        ]
        return [torch.cat(column) for column in zip(*parts, strict=True)]

    def _run(self, inputs: Mapping[str, Tensor], watched: Sequence[str]) -> list[Tensor]:
        seen: dict[str, Tensor] = {}
        wanted = set(watched)

        def keep(name: str, tensor: Tensor) -> None:
            if name in wanted:
                seen[name] = tensor

        self.module(**inputs, on_value=keep)
        return [seen[name] for name in watched]


__all__ = ["Batch", "BatchError", "Runner", "SampleSet"]
