"""A quantized model: compiled, or written as ONNX, with the report on it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

from ..driver import Artifact, Compilation, CompileOptions, OptionError, Source, silent
from .files import write_text
from .islands import float_islands

if TYPE_CHECKING:
    from onnx import ModelProto

    from ..driver import Listener
    from ..ir.graph import Graph
    from ..passes.base import Row
    from ..passes.ranges import Range
    from ..runtime import Session

Form: TypeAlias = Literal["qdq", "qoperator"]
"""How ONNX models say that something is quantized: pairs of QuantizeLinear and DequantizeLinear
around float ops, or ops on integers such as QLinearConv."""

_OPERATORS = "fold,simplify,qdq_fuse{always=true},qlinear,cse,dce"
"""The passes that put ops on integers in the place of quantizers and float ops."""


@dataclass
class Quantized:
    """A quantized model: a graph of QuantizeLinear, DequantizeLinear and float ops.

    ``ranges`` are those of its tensors, by name. ``layers`` and ``tensors`` are the report: a row
    for each layer that could be quantized, and for each tensor that was. They hold ratios of signal
    to quantization noise in decibels; ``alone`` is that of a layer's result where only it is
    quantized, if that was asked, and ``gain`` how many times as fast 8 bits should make a layer.
    ``score`` and ``float_score`` are what the metric says of it and of the float model, where that
    was asked. ``islands`` are what the compiled model computes in floats between quantized layers
    (:mod:`.islands`), known once it is compiled. ``tables`` are those of passes that prepared the
    float model: ``equalized`` and ``smoothed``. ``source`` says what it was made from, and
    ``options`` how it is to be compiled.
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
    islands: Sequence[Row] | None = None

    @property
    def report(self) -> dict[str, Any]:
        """All that there is to say, as JSON holds it."""
        told: dict[str, Any] = {"layers": list(self.layers), "tensors": list(self.tensors)}
        told |= {name: list(rows) for name, rows in self.tables.items()}
        if self.score is not None:
            told |= {"score": self.score, "float score": self.float_score}
        if self.islands is not None:
            told["islands"] = list(self.islands)
        return told

    def compile(self, listener: Listener | None = None) -> Artifact:
        """The artifact, for the target of the options; raises what compiling raises."""
        step = Compilation(self.options, listener or silent)
        artifact = step.run_graph(self.graph.copy(), self.source)
        self.islands = float_islands(artifact.graph, self.layers)
        artifact.report["quantization"] = self.report
        return artifact

    def to_onnx(self, path: str | os.PathLike[str] | None = None, form: Form = "qdq") -> ModelProto:
        """An ONNX model, written to ``path`` if one is given.

        The ``form`` ``qdq`` has standard ops only. ``qoperator`` has ops on integers, those of
        com.microsoft among them, where there are such: results are within a step of those of
        ``qdq``. Raises :class:`.OptionError` for another form, and :class:`.ExportError` for ops
        that have no ONNX form.
        """
        from ..frontend.export import to_onnx

        if form not in get_args(Form):
            raise OptionError(f"form is one of {', '.join(get_args(Form))}, not {form!r}")
        return to_onnx(self.graph if form == "qdq" else _with_operators(self.graph), path)

    def save(
        self, path: str | os.PathLike[str], listener: Listener | None = None, form: Form = "qdq"
    ) -> Path:
        """Write an ONNX model where the name ends in ``.onnx``, in the ``form`` that
        :meth:`to_onnx` describes; else compile, and write the artifact.
        """
        target = Path(path)
        if target.suffix == ".onnx":
            self.to_onnx(target, form)
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
        """Write the report as JSON, or as a page where the name ends in ``.html``.

        Raises :class:`.ReportError` where the libraries for a page are missing.
        """
        from .page import page

        target = Path(path)
        is_page = target.suffix == ".html"
        write_text(target, page(self) if is_page else json.dumps(self.report, indent=1) + "\n")


def _with_operators(graph: Graph) -> Graph:
    """A copy of a quantized graph with ops on integers where there are such."""
    from ..passes.manager import PassManager
    from ..passes.pipeline import parse_pipeline

    copy = graph.copy()
    PassManager(parse_pipeline(_OPERATORS)).run(copy)
    return copy


__all__ = ["Form", "Quantized"]
