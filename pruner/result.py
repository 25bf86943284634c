"""A pruned model: compiled, or written as ONNX, with the report on it."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..driver import Artifact, Compilation, CompileOptions, Source, silent
from ..quantizer.files import write_text

if TYPE_CHECKING:
    from onnx import ModelProto

    from ..driver import Listener
    from ..ir.graph import Graph
    from ..passes.base import Row
    from ..runtime import Session


@dataclass(frozen=True)
class Size:
    """The elements of all constants, and the arithmetic operations of one run.

    Sizes that are open count as 1 in the operations.
    """

    weights: int
    operations: int

    @classmethod
    def of(cls, graph: Graph) -> Size:
        """The size of a graph whose types are inferred."""
        from ..ir.dims import evaluate, free_symbols
        from ..ir.flops import count_flops

        arrays = (n.out().constant for n in graph.nx if n.key == "Constant")
        total = count_flops(graph)
        operations = evaluate(total, dict.fromkeys(free_symbols(total), 1))
        return cls(sum(a.size for a in arrays if a is not None), operations)


@dataclass
class Pruned:
    """A pruned model: a graph with fewer channels.

    ``groups`` is the report: a row for each group of channels that can only be dropped together,
    with how many there are, how many were dropped, and why none may be. ``before`` and ``after``
    are the sizes of the model, ``ratio`` what was asked for or found. ``score`` and
    ``original_score`` are what the metric says of it and of the original, where that was asked.
    ``source`` says what it was made from, and ``options`` how it is to be compiled.
    """

    graph: Graph
    source: Source
    options: CompileOptions
    ratio: float
    before: Size
    after: Size
    groups: Sequence[Row] = ()
    warnings: list[str] = field(default_factory=list)
    score: float | None = None
    original_score: float | None = None

    @property
    def report(self) -> dict[str, Any]:
        """All that there is to say, as JSON holds it."""
        told: dict[str, Any] = {
            "ratio": self.ratio, "before": vars(self.before), "after": vars(self.after),
            "groups": list(self.groups),
        }  # fmt: skip
        if self.score is not None:
            told |= {"score": self.score, "original score": self.original_score}
        return told

    def compile(self, listener: Listener | None = None) -> Artifact:
        """The artifact, for the target of the options; raises what compiling raises."""
        step = Compilation(self.options, listener or silent)
        artifact = step.run_graph(self.graph.copy(), self.source)
        artifact.report["pruning"] = self.report
        return artifact

    def to_onnx(self, path: str | os.PathLike[str] | None = None) -> ModelProto:
        """An ONNX model, written to ``path`` if one is given.

        Raises :class:`.ExportError` for ops that have no ONNX form.
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

    def save_report(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JSON. Raises ``OSError``."""
        write_text(Path(path), json.dumps(self.report, indent=1) + "\n")


__all__ = ["Pruned", "Size"]
