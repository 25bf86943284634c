"""``graphkiln.distill``: read two models and samples, train, and hand back the student."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..driver import (
    Compilation,
    CompileOptions,
    Listener,
    OptionError,
    Source,
    samples,
    silent,
)
from .result import Distilled

if TYPE_CHECKING:
    from ..driver import Data
    from ..ir.graph import Graph
    from ..training.recipe import Recipe
    from ..training.trainer import Epoch

BEFORE = "settle,decompose,simplify,cse,dce"
"""The passes before training: sizes and constants are known then, and weights are as the model has
them. What is folded or fused only when the student is compiled trains as it stands."""

STUDENT, TEACHER = "student", "teacher"


def distill(
    student: Any,
    teacher: Any,
    data: str | os.PathLike[str] | Data,
    recipe: Recipe | None = None,
    *,
    labels: str | None = None,
    start: Any = STUDENT,
    checkpoint: str | os.PathLike[str] | None = None,
    resume: bool = False,
    options: CompileOptions | None = None,
    listener: Listener | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
    **fields: Any,
) -> Distilled:
    """Train a student to give what its teacher gives.

    ``student`` and ``teacher`` are paths, bytes or ``onnx.ModelProto``: a smaller model, a pruned
    one, or a quantized one (QuantizeLinear and DequantizeLinear around float ops), which trains
    through its rounding; its inputs are among those of the teacher, or the other way round.
    ``data`` are samples: dicts of arrays by input, or a source as :func:`.samples.samples_of`
    reads it. They are held in memory, and all have one shape. ``labels`` names the array of
    integers among them that are the right classes.

    The student begins with its own weights where ``start`` is ``student``; else with those of the
    teacher, or of another model that is given here, as far as they fit
    (:func:`.training.transfer.transfer`). ``recipe`` says how it is trained; further keywords are
    its fields, or those of :class:`CompileOptions`, by which the result is compiled.

    The folder ``checkpoint`` keeps the state after each epoch; with ``resume``, training goes on
    from there and comes to the same weights, bit for bit on the same machine. Started by PyTorch's
    launcher (``torchrun``), all processes share each batch, and come to the same result.

    Raises :class:`.OptionError` and :class:`.RecipeError` for options that make no sense,
    :class:`.SamplesError` and :class:`.BatchError` for data, :class:`.MissingTorchError` without
    PyTorch, :class:`.TrainingError` for models that do not run in it and for losses that are no
    numbers, :class:`.CheckpointError`, and what importing raises.
    """
    from ..training.recipe import Recipe

    given = {n: fields.pop(n) for n in Recipe.__dataclass_fields__.keys() & fields.keys()}
    chosen = replace(recipe or Recipe(), **given)
    compile_options = options or CompileOptions(**fields)
    if resume and checkpoint is None:
        raise OptionError("resume needs a checkpoint, the folder to go on from")
    work = _Distillation.of(student, teacher, compile_options, listener or silent)
    return work.run(data, chosen, labels, start, checkpoint, resume, on_epoch)


@dataclass
class _Distillation:
    """Two models as graphs that run in PyTorch, and where the student comes from."""

    student: Graph
    teacher: Graph
    source: Source
    teacher_digest: str
    options: CompileOptions
    listener: Listener
    warnings: list[str]

    @classmethod
    def of(
        cls, student: Any, teacher: Any, options: CompileOptions, listener: Listener
    ) -> _Distillation:
        own, source, warnings = _prepared(student, options, listener)
        other, taught, _ = _prepared(teacher, replace(options, shapes=None), listener)
        return cls(own, other, source, taught.sha256, options, listener, warnings)

    def run(
        self, data: Any, recipe: Recipe, labels: str | None, start: Any,
        checkpoint: str | os.PathLike[str] | None, resume: bool,
        on_epoch: Callable[[Epoch], None] | None,
    ) -> Distilled:  # fmt: skip
        from ..training.checkpoint import Checkpoint
        from ..training.module import Module
        from ..training.objective import Objective
        from ..training.samples import SampleSet
        from ..training.team import team
        from ..training.trainer import Trainer

        rows = self._start(start)
        student = Module(self.student)
        teacher = Module(self.teacher, trainable=lambda name, array: False)
        names = list(dict.fromkeys([*student.input_names, *teacher.input_names]))
        held = SampleSet.read(samples(data, self._input_graph(names)), names, labels)
        objective = Objective(student, teacher, recipe, labels is not None)
        key = self._key(recipe, held, start)
        with team() as processes:
            place = Checkpoint(None if checkpoint is None else Path(checkpoint), key)
            trainer = Trainer(objective, held, recipe, place, processes)
            trainer.run(
                resume=resume, on_epoch=on_epoch if processes.leads else None,
                on_step=lambda done, total: self.listener("train", done, total),
            )  # fmt: skip
        return Distilled(
            student.to_graph(), self.source, self.options, [e.row for e in trainer.history],
            rows, self.warnings,
        )  # fmt: skip

    def _input_graph(self, names: list[str]) -> Graph:
        """The graph whose inputs tell how samples are read: the one with all inputs, or one."""
        own = {v.name for v in self.student.inputs}
        return self.student if own >= set(names) else self.teacher

    def _start(self, start: Any) -> list[dict[str, Any]]:
        """Give the student the weights to begin with; tells which ones it took over."""
        from ..training.transfer import transfer

        if isinstance(start, str) and start == STUDENT:
            return []
        other = self.teacher
        if not (isinstance(start, str) and start == TEACHER):
            other = _prepared(start, replace(self.options, shapes=None), silent)[0]
        return transfer(other, self.student)

    def _key(self, recipe: Recipe, held: Any, start: Any) -> str:
        """What a checkpoint is of: models, samples, where weights begin, the recipe."""
        digest = hashlib.sha256()
        for name, tensor in [*sorted(held.inputs.items()), ("", held.labels)]:
            if tensor is not None:
                digest.update(f"{name} {tuple(tensor.shape)}".encode())
                digest.update(tensor.contiguous().numpy().tobytes())
        first = start if start in (STUDENT, TEACHER) else "another model"
        return (
            f"{self.source.sha256} {self.teacher_digest} {digest.hexdigest()} {first} {recipe.text}"
        )


def _prepared(
    model: Any, options: CompileOptions, listener: Listener
) -> tuple[Graph, Source, list[str]]:
    """A model's graph, ready to be trained, where it comes from, and what there is to remark."""
    first = replace(options, passes=BEFORE, dump_ir=None, stop_after=None, tune=0.0, explain=None)
    step = Compilation(first, listener)
    graph, source = step.imported(model)
    graph = step.optimize(graph)
    return graph, source, [*source.warnings, *step.report["warnings"]]


__all__ = ["BEFORE", "STUDENT", "TEACHER", "distill"]
