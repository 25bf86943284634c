"""A quantized model: compiled, or written as ONNX, with the report on it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..driver import Artifact, Compilation, CompileOptions, Source, silent
from .files import write_text

if TYPE_CHECKING:
    from onnx import ModelProto

    from ..driver import Listener
    from ..ir.graph import Graph
    from ..passes.base import Row
    from ..passes.ranges import Range
    from ..runtime import Session


@dataclass
class Quantized:
    """A quantized model: a graph of QuantizeLinear, DequantizeLinear and float ops.

    ``ranges`` are those of its tensors, by name. ``layers`` and ``tensors`` are the report: a row
    for each layer that could be quantized, and for each tensor that was (ratios of signal to
    quantization noise in decibels; ``alone`` is that of a layer's result where only it is
    quantized, if that was asked). ``score`` and
    ``float_score`` are what the metric says of it and of the float model, where that was asked.
    ``tables`` are those of passes that prepared the float model: ``equalized`` and ``smoothed``.
    ``source`` says what it was made from, and ``options`` how it is to be compiled.
    """

    graph: Graph
    source: Source
    options: CompileOptions
    ranges: dict[str, Range]
    layers: Sequence[Row] = ()
    tensors: Sequence[Row] = ()
    warnings: list[str] = field(default_factory=list)
    score: float | None = None
    float_score: float | None = None
    tables: Mapping[str, Sequence[Row]] = field(default_factory=dict)

    @property
    def report(self) -> dict[str, Any]:
        """All that there is to say, as JSON holds it."""
        told: dict[str, Any] = {"layers": list(self.layers), "tensors": list(self.tensors)}
        told |= {name: list(rows) for name, rows in self.tables.items()}
        if self.score is not None:
            told |= {"score": self.score, "float score": self.float_score}
        return told

    def compile(self, listener: Listener | None = None) -> Artifact:
        """The artifact, for the target of the options; raises what compiling raises."""
        step = Compilation(self.options, listener or silent)
        artifact = step.run_graph(self.graph.copy(), self.source)
        artifact.report["quantization"] = self.report
        return artifact

    def to_onnx(self, path: str | os.PathLike[str] | None = None) -> ModelProto:
        """A standard ONNX model, written to ``path`` if one is given.

        Raises :class:`.ExportError` for ops that have no ONNX form.
        """
        from ..frontend.export import to_onnx

        return to_onnx(self.graph, path)

    def save(self, path: str | os.PathLike[str], listener: Listener | None = None) -> Path:
        """Write an ONNX model where the name ends in ``.onnx``, else compile, and write the
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

    def save_ranges(self, path: str | os.PathLike[str]) -> None:
        """Write the ranges as text that can be edited, merged, and given to :func:`quantize`."""
        from ..passes.ranges import write_ranges

        write_text(Path(path), write_ranges(self.ranges))

    def save_report(self, path: str | os.PathLike[str]) -> None:
        """Write the report as JSON."""
        write_text(Path(path), json.dumps(self.report, indent=1) + "\n")


__all__ = ["Quantized"]
