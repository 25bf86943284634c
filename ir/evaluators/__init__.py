"""NumPy evaluation of ops where ``onnx.reference`` is slow or incomplete."""

from __future__ import annotations

from .table import EVALUATORS

__all__ = ["EVALUATORS"]
