"""Import of ONNX: from a model file to a typed graph of one opset, or an error with all reasons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..ir.graph import Graph
from .defaults import DEFAULTS, Defaults
from .errors import Blocker, FrontendError, shorten
from .source import ModelLike, Source, open_model
from .specialisation import import_graph


@dataclass
class Imported:
    """An imported model: the graph, the file's name, and remarks for the user."""

    graph: Graph
    source: str
    warnings: list[str]
    _model: Source = field(repr=False)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the model's bytes and of the external files it uses.

        It is computed on first use, since that reads all of the weights.
        """
        return self._model.digest

    @property
    def header(self) -> dict[str, str]:
        """Metadata of the file: IR version, opsets, and the program that wrote it."""
        proto = self._model.proto
        opsets = {o.domain or "ai.onnx": o.version for o in proto.opset_import}
        return {
            "IR version": str(proto.ir_version),
            "opsets": ", ".join(f"{domain} {version}" for domain, version in opsets.items()),
            "producer": shorten(f"{proto.producer_name} {proto.producer_version}".strip()),
        }


def load_model(
    model: ModelLike,
    *,
    shapes: Mapping[str, Sequence[int | str]] | None = None,
    input_defaults: Defaults = "auto",
) -> Imported:
    """Import an ONNX model from a path, from bytes or from a ``ModelProto``.

    ``shapes`` sets the shapes of inputs: each entry is an int, or the name of a symbolic dimension.
    ``input_defaults`` says what initializers among the inputs become: see :mod:`.defaults`.

    Every value of the graph has a type. If the model only works for some sizes of an open
    dimension, these are assumed, and a remark says so. Raises :class:`FrontendError`, which lists
    every blocker.
    """
    source = open_model(model)
    graph, warnings = import_graph(source, shapes or {}, input_defaults)
    return Imported(graph, source.name, warnings, source)


__all__ = ["DEFAULTS", "Blocker", "Defaults", "FrontendError", "Imported", "load_model"]
