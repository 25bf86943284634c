"""The training loop: steps, validation, the best weights, checkpoints.

Every random choice follows from the seed and the number of the epoch or step. A state is thus the
weights, the optimizer's moments and two counters, and a training that goes on from a checkpoint
does the very same steps.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from .checkpoint import Checkpoint
from .errors import TrainingError
from .objective import Objective
from .recipe import Recipe
from .samples import Batch, SampleSet
from .team import Team

_OFTEN = 60.0
"""Seconds between two checkpoints within an epoch."""


@dataclass(frozen=True)
class Epoch:
    """What an epoch gave: mean losses by part, and the shares of rows that were right.

    ``accuracy`` is that of the training rows, ``held_loss`` and ``held_accuracy`` are those of the
    samples that are held out, None without such.
    """

    number: int
    losses: Mapping[str, float]
    accuracy: float
    held_loss: float | None
    held_accuracy: float | None
    rate: float
    seconds: float

    @property
    def row(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "epoch": self.number, **self.losses, "accuracy": self.accuracy,
            "held loss": self.held_loss, "held accuracy": self.held_accuracy,
            "rate": self.rate, "seconds": self.seconds,
        }  # fmt: skip


OnEpoch = Callable[[Epoch], None]
OnStep = Callable[[int, int], None]


@dataclass
class _Progress:
    """Where a training is: finished steps of the current epoch, and the epoch's sums so far."""

    epoch: int = 0
    step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    best: float = math.inf
    best_epoch: int = -1


class Trainer:
    """Trains the student of an objective on samples, by a recipe."""

    def __init__(
        self, objective: Objective, samples: SampleSet, recipe: Recipe,
        checkpoint: Checkpoint | None = None, team: Team | None = None,
    ) -> None:  # fmt: skip
        """Raises :class:`.TrainingError` where too few samples are left to train on."""
        self.objective, self.samples, self.recipe = objective, samples, recipe
        self.checkpoint = checkpoint or Checkpoint(None, "")
        self.team = team or Team()
        self.history: list[Epoch] = []
        order = _shuffled(len(samples), recipe.seed, -1)
        held = round(len(samples) * recipe.validation)
        self._held, self._train = order[:held], order[held:].sort().values
        if not len(self._train):
            raise TrainingError("validation leaves no samples to train on")
        first = samples.batch(self._train[:1])
        objective.prepare(first)
        self._module = objective.student.module
        self._parameters = _reached(objective, first)
        self._steps = samples.count_batches(len(self._train), recipe.batch)
        self._optimizer = _optimizer(recipe, self._parameters)
        self._best: dict[str, torch.Tensor] = {}
        self._at = _Progress()
        self._saved = time.monotonic()

    def run(self, *, resume: bool = False, on_epoch: OnEpoch | None = None,
            on_step: OnStep | None = None) -> None:  # fmt: skip
        """Train to the end; the student then has the best weights.

        With ``resume``, go on from the checkpoint if there is one. ``on_epoch`` is told of each
        epoch, ``on_step`` of steps done and in all. Raises :class:`.TrainingError` where the loss
        is no number any more.
        """
        if resume:
            self._restore()
        while self._at.epoch < self.recipe.epochs and not self._is_stale():
            epoch = self._epoch(on_step)
            self.history.append(epoch)
            self._note(epoch)
            self._at.epoch, self._at.step, self._at.sums = self._at.epoch + 1, 0, {}
            self._save()
            if on_epoch is not None:
                on_epoch(epoch)
        if self._best:
            self._module.load_state_dict(self._best)

    # ---- epochs ------------------------------------------------------------------------------

    def _epoch(self, on_step: OnStep | None) -> Epoch:
        at, recipe = self._at, self.recipe
        started = time.perf_counter()
        order = self._train[_shuffled(len(self._train), recipe.seed, at.epoch)]
        rate = 0.0
        for number, batch in enumerate(self.samples.batches(order, recipe.batch)):
            if number < at.step:
                continue
            rate = self._step(batch, number)
            at.step = number + 1
            if on_step is not None:
                on_step(at.epoch * self._steps + at.step, recipe.epochs * self._steps)
            if time.monotonic() - self._saved > _OFTEN and at.step < self._steps:
                self._save()
        totals = dict(zip(at.sums, self.team.sums(list(at.sums.values())), strict=True))
        rows, right = totals.pop("rows"), totals.pop("right")
        losses = {name: total / rows for name, total in totals.items()}
        held_loss, held_accuracy = self._validate()
        seconds = time.perf_counter() - started
        return Epoch(at.epoch, losses, right / rows, held_loss, held_accuracy, rate, seconds)

    def _step(self, batch: Batch, number: int) -> float:
        """One step of the optimizer; gives its rate."""
        at, recipe = self._at, self.recipe
        place = at.epoch * self._steps + number
        random = _generator(recipe.seed, 1, place)
        batch = batch.map(
            lambda t: recipe.augment.apply(t, random), originals=recipe.teacher_sees == "same"
        )
        whole = batch.size
        batch = self.team.share(batch)
        rate = recipe.lr * rate_factor(recipe, place, recipe.epochs * self._steps)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.zero_grad(set_to_none=True)
        found = self._backward(batch) if batch.size else {}
        self.team.sum_gradients(self._parameters, batch.size / whole)
        if recipe.clip:
            nn.utils.clip_grad_norm_(self._parameters, recipe.clip)
        if not math.isfinite(found.get("loss", 0.0)):
            raise TrainingError(
                f"the loss is {found['loss']} in epoch {at.epoch}: a lower learning rate may help"
            )
        self._optimizer.step()
        for name, value in found.items():
            at.sums[name] = at.sums.get(name, 0.0) + value
        return rate

    def _backward(self, batch: Batch) -> dict[str, float]:
        """Compute gradients; gives sums over the rows of the batch."""
        losses = self.objective(batch)
        losses.total.backward()  # type: ignore[no-untyped-call]
        parts = {"loss": float(losses.total.detach()), **losses.parts}
        sums = {name: value * batch.size for name, value in parts.items()}
        return {"rows": float(batch.size), "right": losses.right, **sums}

    @torch.no_grad()
    def _validate(self) -> tuple[float | None, float | None]:
        """The loss and the accuracy on what is held out."""
        if not len(self._held):
            return None, None
        loss = right = rows = 0.0
        for batch in self.samples.batches(self._held, self.recipe.batch):
            found = self.objective(batch)
            loss += float(found.total) * batch.size
            right += found.right
            rows += batch.size
        return loss / rows, right / rows

    def _note(self, epoch: Epoch) -> None:
        """Keep the weights of the best epoch so far."""
        if epoch.held_loss is not None and epoch.held_loss < self._at.best:
            self._at.best, self._at.best_epoch = epoch.held_loss, epoch.number
            self._best = {n: t.clone() for n, t in self._module.state_dict().items()}

    def _is_stale(self) -> bool:
        """Were the last epochs no better than one before?"""
        patience, at = self.recipe.patience, self._at
        return bool(patience and at.best_epoch >= 0 and at.epoch - 1 - at.best_epoch >= patience)

    # ---- checkpoints -------------------------------------------------------------------------

    def _save(self) -> None:
        self._saved = time.monotonic()
        if not self.team.leads:
            return
        at = self._at
        self.checkpoint.save(
            {
                "student": self._module.state_dict(),
                "extra": self.objective.extra.state_dict(),
                "optimizer": self._optimizer.state_dict(),
                "best": self._best,
                "at": vars(at) | {"sums": dict(at.sums)},
                "history": [vars(e) | {"losses": dict(e.losses)} for e in self.history],
            }
        )

    def _restore(self) -> None:
        state = self.checkpoint.load()
        if state is None:
            return
        self._module.load_state_dict(state["student"])
        self.objective.extra.load_state_dict(state["extra"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._best = dict(state["best"])
        self._at = _Progress(**state["at"])
        self.history = [Epoch(**e) for e in state["history"]]


def rate_factor(recipe: Recipe, step: int, steps: int) -> float:
    """The share of ``lr`` that step ``step`` of ``steps`` takes.

    It rises in a straight line over the warm-up, and then stays (``constant``), or falls by half a
    cosine (``cosine``; ``one-cycle`` has a warm-up of three tenths at least).
    """
    share = max(recipe.warmup, 0.3) if recipe.schedule == "one-cycle" else recipe.warmup
    rising = share * steps
    if step < rising:
        return (step + 1) / max(rising, 1.0) if step + 1 < rising else 1.0
    if recipe.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1.0, steps - rising)))


def _optimizer(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, recipe.lr, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay
        )
    return torch.optim.AdamW(parameters, recipe.lr, weight_decay=recipe.weight_decay)


def _reached(objective: Objective, batch: Batch) -> list[nn.Parameter]:
    """The parameters that the loss depends on: others, of further results, stay as they are.

    Raises :class:`.TrainingError` where the student has none.
    """
    own = list(objective.student.module.parameters())
    parameters = [*own, *objective.extra.parameters()]
    total = objective(batch).total
    if not own or not total.requires_grad:
        raise TrainingError("the student has no weights to train")
    gradients = torch.autograd.grad(total, parameters, allow_unused=True)
    return [p for p, g in zip(parameters, gradients, strict=True) if g is not None]


def _generator(seed: int, stream: int, place: int) -> torch.Generator:
    """Random numbers of one step or epoch, which depend on nothing else."""
    mixed = seed * 0x9E3779B97F4A7C15 + stream * 0xBF58476D1CE4E5B9 + place * 0x94D049BB133111EB
    return torch.Generator().manual_seed(mixed % 2**63)


def _shuffled(count: int, seed: int, epoch: int) -> torch.Tensor:
    return torch.randperm(count, generator=_generator(seed, 0, epoch + 1))


__all__ = ["Epoch", "OnEpoch", "OnStep", "Trainer", "rate_factor"]
