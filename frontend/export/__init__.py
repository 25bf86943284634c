"""Graphs back to ONNX: standard ops only, so that any ONNX runtime loads the result."""

from __future__ import annotations

from .model import to_onnx
from .scope import EXPORTERS, Exporter, ExportError, Scope

__all__ = ["EXPORTERS", "ExportError", "Exporter", "Scope", "to_onnx"]
