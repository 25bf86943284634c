"""A trained student: compiled, or written as ONNX, with the report on its training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..driver import Artifact, Compilation, CompileOptions, Source, silent

if TYPE_CHECKING:
    from onnx import ModelProto

    from ..driver import Listener
    from ..ir.graph import Graph
    from ..runtime import Session


@dataclass
class Distilled:
    """A student with the weights that it has learned.

    ``history`` has a row for each epoch: mean losses by part, the share of samples whose class is
    that of the label (or without labels that of the teacher), and both of what was held out.
    ``transferred`` has a row for each weight that began as the teacher's. ``source`` says what it
    was made from, and ``options`` how it is to be compiled.
    """

    graph: Graph
    source: Source
    options: CompileOptions
    history: Sequence[dict[str, Any]] = ()
    transferred: Sequence[dict[str, Any]] = ()
    warnings: list[str] = field(default_factory=list)

    @property
    def report(self) -> dict[str, Any]:
        """All that there is to say, as JSON holds it."""
        return {"epochs": list(self.history), "transferred": list(self.transferred)}

    def compile(self, listener: Listener | None = None) -> Artifact:
        """The artifact, for the target of the options; raises what compiling raises."""
        step = Compilation(self.options, listener or silent)
        artifact = step.run_graph(self.graph.copy(), self.source)
        artifact.report["distillation"] = self.report
        return artifact

    def to_onnx(self, path: str | os.PathLike[str] | None = None) -> ModelProto:
        """An ONNX model, written to ``path`` if one is given; raises :class:`.ExportError` for ops
        that have no ONNX form.
        """
        from ..frontend.export import to_onnx

        return to_onnx(self.graph, path)

    def save(self, path: str | os.PathLike[str], listener: Listener | None = None) -> Path:
        """Write an ONNX model where the name ends in ``.onnx``; else compile, and write the
        artifact.
        """
        target = Path(path)
        if target.suffix == ".onnx":
            self.to_onnx(target)
            return target
        return self.compile(listener).save(target)

    def session(self, *, threads: int | None = None) -> Session:
        """Compile, and load the artifact in this process."""
        return self.compile().session(threads=threads)


__all__ = ["Distilled"]
