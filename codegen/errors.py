"""Errors of the code generator."""

from __future__ import annotations

from ..errors import GraphkilnError


class CodegenError(GraphkilnError):
    """A node cannot be compiled; the message names it and says why."""


__all__ = ["CodegenError"]
