"""How a student is trained: all choices, each checked."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from ..errors import UsageError
from .augment import Augmentation

LOSSES = ("kl", "mse")
OPTIMIZERS = ("adamw", "sgd")
SCHEDULES = ("cosine", "one-cycle", "constant")
TEACHER_SEES = ("same", "original")


class RecipeError(UsageError):
    """A choice of a training makes no sense."""


@dataclass(frozen=True)
class Match:
    """A value of the student that shall resemble one of the teacher, both by name."""

    student: str
    teacher: str

    @classmethod
    def parse(cls, text: str) -> Match:
        """``student=teacher``, or one name for both; raises :class:`RecipeError`."""
        student, _, teacher = text.rpartition("=")
        if not teacher or text.startswith("="):
            raise RecipeError(f"{text!r} is not STUDENT=TEACHER, two names of values")
        return cls(student or teacher, teacher)


@dataclass(frozen=True)
class Recipe:
    """The choices of a distillation; the command line spells the fields the same way.

    The loss is ``alpha * soft + (1 - alpha) * hard``, plus ``feature_weight`` times the mean loss
    of ``match`` and ``attention_weight`` times that of ``attention`` (:mod:`.losses`). ``soft``
    compares with the teacher's results, by ``loss``: ``kl`` of distributions softened by
    ``temperature``, or ``mse``. ``hard`` is the cross entropy of ``labels``. ``alpha`` None is 0.5
    with labels and 1 without. ``class_axis`` is that of the classes in the results; that of a
    softmax at the end of the model goes first.

    ``optimizer`` and ``schedule`` go from the rate ``lr`` on, over ``epochs`` of batches of
    ``batch`` samples; ``warmup`` is the share of the steps in which the rate rises to ``lr``.
    ``clip`` bounds the norm of each step's gradient (0: no bound). The share ``validation`` of the
    samples is held out; where there are such, the weights with the least loss on them are kept, and
    after ``patience`` epochs without a lesser one training ends (0: it goes on). ``seed`` decides
    about the order of samples, what is held out, and the augmentation. Of images that are changed
    the teacher sees the ``same``, or the ``original``: it knows the ones that it was trained on
    better, but what the two see no longer agrees place by place.
    """

    temperature: float = 3.0
    alpha: float | None = None
    loss: str = "kl"
    class_axis: int = -1
    match: tuple[Match, ...] = ()
    feature_weight: float = 1.0
    attention: tuple[Match, ...] = ()
    attention_weight: float = 1.0
    epochs: int = 20
    batch: int = 64
    optimizer: str = "adamw"
    lr: float = 1e-3
    weight_decay: float = 1e-4
    schedule: str = "cosine"
    warmup: float = 0.05
    clip: float = 0.0
    validation: float = 0.1
    patience: int = 0
    augment: Augmentation = field(default_factory=Augmentation)
    teacher_sees: str = "same"
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises :class:`RecipeError` for values that make no sense."""
        self._require_one_of("loss", LOSSES)
        self._require_one_of("optimizer", OPTIMIZERS)
        self._require_one_of("schedule", SCHEDULES)
        self._require_one_of("teacher_sees", TEACHER_SEES)
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                bound = f"from {low:g} to {high:g}" if high < _MANY else f"{low:g} or more"
                raise RecipeError(f"{name} must be {bound}, not {value!r}")

    def _require_one_of(self, name: str, known: tuple[str, ...]) -> None:
        value = getattr(self, name)
        if value not in known:
            raise RecipeError(f"{name} is one of {', '.join(known)}, not {value!r}")

    @property
    def text(self) -> str:
        """All choices, by which a checkpoint knows its training."""
        return " ".join(f"{f.name}={getattr(self, f.name)!r}" for f in fields(self))


_MANY = 1e18
_RANGES = (
    ("temperature", 1e-3, 1e3), ("alpha", 0, 1), ("feature_weight", 0, _MANY),
    ("attention_weight", 0, _MANY), ("epochs", 1, _MANY), ("batch", 1, _MANY), ("lr", 0, 1e3),
    ("weight_decay", 0, 1e3), ("warmup", 0, 1), ("clip", 0, _MANY), ("validation", 0, 0.9),
    ("patience", 0, _MANY), ("seed", 0, _MANY),
)  # fmt: skip

__all__ = ["LOSSES", "OPTIMIZERS", "SCHEDULES", "TEACHER_SEES", "Match", "Recipe", "RecipeError"]
