"""Graphs back to ONNX: standard ops only, so that any ONNX runtime loads the result."""

from __future__ import annotations

from .functions import FUNCTION_EXPORTERS
from .ml import ML_EXPORTERS
from .model import to_onnx
from .scope import EXPORTERS, Exporter, ExportError, Scope

EXPORTERS.update(ML_EXPORTERS)
EXPORTERS.update(FUNCTION_EXPORTERS)

__all__ = ["EXPORTERS", "ExportError", "Exporter", "Scope", "to_onnx"]
