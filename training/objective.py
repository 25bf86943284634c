"""The loss of a batch, from the results and the matched values of student and teacher."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from ..ir.graph import Graph
from ..ir.registry import attribute
from .errors import TrainingError
from .losses import attention_loss, feature_loss, hard_loss, projections, soft_loss
from .module import Module
from .recipe import Recipe
from .samples import Batch, Runner

Tensor = torch.Tensor


@dataclass(frozen=True)
class Logits:
    """Where a model has its logits: a value's name, and the axis of classes."""

    name: str
    axis: int

    @classmethod
    def of(cls, graph: Graph, axis: int) -> Logits:
        """Those of the first result: in front of a softmax, where the model ends in one."""
        value = graph.outputs[0]
        if value.node.key != "Softmax":
            return cls(value.name, axis)
        before = graph.required_inputs(value.node)[0]
        return cls(before.name, int(attribute(value.node, "axis")))


@dataclass(frozen=True)
class Losses:
    """The loss of a batch and what it consists of, means over rows; ``right`` are the rows whose
    most likely class is that of the label, or without labels that of the teacher.
    """

    total: Tensor
    parts: dict[str, float]
    right: float


class Objective:
    """What a student is trained for, with the extra parameters (projections) that this needs."""

    def __init__(self, student: Module, teacher: Module, recipe: Recipe, labels: bool) -> None:
        """Raises :class:`.TrainingError` for matched values that the models do not have."""
        self.recipe = recipe
        self.alpha = (0.5 if labels else 1.0) if recipe.alpha is None else recipe.alpha
        if self.alpha < 1 and not labels:
            raise TrainingError("alpha below 1 asks for labels, and the samples have none")
        if self.alpha < 1 and recipe.loss != "kl":
            raise TrainingError("labels go with the loss kl only: set alpha to 1")
        self.student, self.teacher = Runner(student), Runner(teacher)
        self._logits = [Logits.of(m.graph, recipe.class_axis) for m in (student, teacher)]
        self._pairs = (*recipe.match, *recipe.attention)
        _require_values(student, [m.student for m in self._pairs], "student")
        _require_values(teacher, [m.teacher for m in self._pairs], "teacher")
        self.extra: nn.ModuleList = nn.ModuleList()

    def prepare(self, batch: Batch) -> None:
        """Make the projections, for the shapes that a batch shows."""
        with torch.no_grad():
            student, teacher = self._values(batch)
        count = len(self.recipe.match)
        self.extra = projections(self.recipe.match, student[1 : 1 + count], teacher[1 : 1 + count])

    def _values(self, batch: Batch) -> tuple[list[Tensor], list[Tensor]]:
        """The logits of both models, each followed by its matched values."""
        own, other = (logits.name for logits in self._logits)
        student = self.student(batch.inputs, [own, *(m.student for m in self._pairs)])
        with torch.no_grad():
            wanted = [other, *(m.teacher for m in self._pairs)]
            teacher = self.teacher(batch.originals, wanted)
        return student, teacher

    def __call__(self, batch: Batch) -> Losses:
        """The losses of a batch; raises :class:`.TrainingError` for shapes that differ."""
        student, teacher = self._values(batch)
        recipe, axis = self.recipe, self._logits[0].axis
        s, t = student[0], teacher[0]
        if s.shape != t.shape:
            raise TrainingError(
                f"the student's result has shape {list(s.shape)}, the teacher's {list(t.shape)}"
            )
        parts = {"soft": self._soft(s, t)}
        total = self.alpha * parts["soft"]
        if self.alpha < 1 and batch.labels is not None:
            parts["hard"] = hard_loss(s, batch.labels, axis)
            total = total + (1 - self.alpha) * parts["hard"]
        count = len(recipe.match)
        matched = list(zip(student[1:], teacher[1:], strict=True))
        if count:
            pairs = zip(self.extra, matched[:count], strict=True)
            parts["features"] = torch.stack([feature_loss(p(a), b) for p, (a, b) in pairs]).mean()
            total = total + recipe.feature_weight * parts["features"]
        if recipe.attention:
            maps = [attention_loss(a, b) for a, b in matched[count:]]
            parts["attention"] = torch.stack(maps).mean()
            total = total + recipe.attention_weight * parts["attention"]
        numbers = {name: float(part.detach()) for name, part in parts.items()}
        return Losses(total, numbers, self._right(s, t, batch.labels, axis))

    def _soft(self, s: Tensor, t: Tensor) -> Tensor:
        if self.recipe.loss == "mse":
            return F.mse_loss(s, t)
        return soft_loss(s, t, self.recipe.temperature, self._logits[0].axis)

    def _right(self, s: Tensor, t: Tensor, labels: Tensor | None, axis: int) -> float:
        """How many rows agree, those with many places in part; 0 where results are no classes."""
        wanted = t.argmax(axis) if labels is None else labels
        chosen = s.argmax(axis)
        if self.recipe.loss == "mse" or wanted.shape != chosen.shape:
            return 0.0
        return float((chosen == wanted).double().reshape(len(s), -1).mean(1).sum())


def _require_values(module: Module, names: list[str], who: str) -> None:
    known = {v.name for node in module.graph.nodes for v in node.values}
    missing = [n for n in names if n not in known]
    if missing:
        raise TrainingError(f"the {who} has no value {missing[0]!r} to match")


__all__ = ["Logits", "Losses", "Objective"]
