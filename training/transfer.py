"""A student's first weights, taken from its teacher's.

A weight of the student gets that of the teacher with the same name, or else, where both have as
many weights of the same ranks, that of the same place. Where the student has fewer channels, it
keeps the most important ones: those with the greatest product of the lengths of all weights that
make the channel or read it. The same channels are kept wherever they are used (:mod:`.channels`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import numpy as np

from ..ir.graph import Graph
from .channels import Channels, Index
from .errors import TrainingError
from .tensors import to_array, to_tensor
from .weights import Weight, weights_of


def transfer(teacher: Graph, student: Graph) -> list[dict[str, Any]]:
    """Give the student's weights (in place) the numbers of the teacher's, as far as they fit.

    Gives a row for each weight: its name, the teacher's that it got, and the kept shares of axes
    that are cut; or why it stays as it is. Raises :class:`.TrainingError` where none fits.
    """
    own = weights_of(student)
    pairs = _pairs(weights_of(teacher), own)
    cut = _Cut(Channels(teacher))
    cut.look(pairs.values())
    cut.choose([old for old, _ in pairs.values()])
    rows = []
    for weight in own:
        if weight.name not in pairs:
            rows.append(_row(weight, "", "the teacher has no such weight"))
            continue
        old, _ = pairs[weight.name]
        array = cut.apply(old, weight)
        if array is None:
            rows.append(_row(weight, "", "its axes are no part of the teacher's channels"))
            continue
        weight.node.attrs["value"] = weight.array(to_tensor(array))
        rows.append(_row(weight, old.name, ""))
    if not any(row["teacher"] for row in rows):
        raise TrainingError("no weight of the teacher fits one of the student: begin with its own")
    return rows


def _row(weight: Weight, teacher: str, reason: str) -> dict[str, Any]:
    return {"weight": weight.name, "teacher": teacher, "reason": reason}


def _pairs(teacher: list[Weight], student: list[Weight]) -> Mapping[str, tuple[Weight, Weight]]:
    """For weights of the student, by name, the teacher's and itself."""
    named = {w.name: w for w in teacher}
    pairs = {w.name: (named[w.name], w) for w in student if w.name in named}
    if not pairs and [_rank(w) for w in teacher] == [_rank(w) for w in student]:
        pairs = {w.name: (old, w) for old, w in zip(teacher, student, strict=True)}
    return {name: (a, b) for name, (a, b) in pairs.items() if _rank(a) == _rank(b)}


def _rank(weight: Weight) -> int:
    return weight.node.out().rank


@dataclass
class _Cut:
    """Which values of the teacher's indices the student keeps."""

    teacher: Channels
    sizes: dict[Index, int] = field(default_factory=dict)
    kept: dict[Index, np.ndarray] = field(default_factory=dict)
    refused: set[Index] = field(default_factory=set)

    def look(self, pairs: Iterable[tuple[Weight, Weight]]) -> None:
        """Learn the sizes of the student's indices from pairs of weights.

        Axes of one index tell its size; then those of several tell that of the one which is left.
        Of more, the outermost is taken to be cut: the channels of what was flattened.
        """
        axes = [
            (self.teacher.of(old.behind, k), size)
            for old, new in pairs
            for k, size in enumerate(new.behind.tensor_type.static_shape)
        ]
        for indices, size in sorted(axes, key=lambda axis: len(axis[0])):
            self._learn(indices, size)

    def _learn(self, indices: tuple[Index, ...], size: int) -> None:
        open_ = [i for i in indices if i not in self.sizes]
        for i in open_[1:]:
            self.sizes[i] = self.teacher.size(i)
        others = prod(self.sizes[i] for i in indices if i in self.sizes)
        if open_ and others and size % others == 0:
            self.sizes[open_[0]] = size // others
        elif indices and others != size:
            self.refused.update(indices)

    def choose(self, weights: list[Weight]) -> None:
        """Choose the most important values of each index that the student cuts."""
        computed = self.teacher.computed
        scores: dict[Index, np.ndarray] = {}
        for weight in weights:
            if _rank(weight) > 1:
                for index, lengths in self._lengths(weight):
                    scores[index] = scores.get(index, np.zeros(len(lengths))) + np.log(lengths)
        for index, size in self.sizes.items():
            have = self.teacher.size(index)
            if size == have:
                self.kept[index] = np.arange(have)
            elif index in self.refused or index not in computed or size > have:
                self.refused.add(index)
            else:
                order = np.argsort(-scores.get(index, np.zeros(have)), kind="stable")
                self.kept[index] = np.sort(order[:size])

    def _lengths(self, weight: Weight) -> list[tuple[Index, np.ndarray]]:
        """For each index of a weight the lengths of its parts, one for each value."""
        spread = self._spread(weight)
        if spread is None:
            return []
        array, indices = spread
        squares = array.astype(np.float64) ** 2
        found = []
        for axis, index in enumerate(indices):
            others = tuple(k for k in range(squares.ndim) if k != axis)
            found.append((index, np.sqrt(squares.sum(others)) + 1e-12))
        return found

    def _spread(self, weight: Weight) -> tuple[np.ndarray, list[Index]] | None:
        """The float weight with an axis for each index; None where the indices are not known."""
        value = weight.behind
        parts = [self.teacher.of(value, k) for k in range(value.rank)]
        indices = [i for part in parts for i in part]
        array = to_array(weight.initial())
        sizes = [self.teacher.size(i) for i in indices]
        if prod(sizes) != array.size:
            return None
        return array.reshape(sizes), indices

    def apply(self, old: Weight, new: Weight) -> np.ndarray | None:
        """What the student gets of a weight, in its shape, or None where that does not fit."""
        shape = new.behind.tensor_type.static_shape
        if old.behind.tensor_type.static_shape == shape:
            spread = self._spread(old)
            whole = spread is None or all(
                i not in self.kept or len(self.kept[i]) == self.teacher.size(i) for i in spread[1]
            )
            return to_array(old.initial()) if whole else None
        spread = self._spread(old)
        if spread is None or any(i in self.refused or i not in self.kept for i in spread[1]):
            return None
        array, indices = spread
        for axis, index in enumerate(indices):
            array = array.take(self.kept[index], axis)
        return array.reshape(shape) if array.size == prod(shape) else None


__all__ = ["transfer"]
