"""The interface of the importer for rules.

The importer calls upgrade rules, expansions and control flow, which call it in turn, to add nodes,
bodies and functions. They use it as an :class:`ImportContext`, so that there is no import circle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import onnx

from ..ir.registry import Needs
from .assumptions import Assumptions
from .errors import Blocker
from .node import OnnxNode
from .scope import Scope, Slot
from .valuetypes import Symbols


class ImportContext(Protocol):
    """An import in progress, such as an :class:`~.importer.Importer`.

    ``needs`` are the conditions on the symbols of the model's inputs, ``blockers`` the failures so
    far. ``assumptions``, if given, answer conditions that decide ranks; ``undecided`` tells whether
    there was such a condition without them.
    """

    assumptions: Assumptions | None
    undecided: bool
    needs: Needs
    symbols: Symbols
    blockers: list[Blocker]

    @property
    def used_names(self) -> set[str]:
        """All names that nodes, bodies and functions of the model use."""

    def place(self, node: OnnxNode, scope: Scope) -> Sequence[Slot]:
        """Add a node of the newest opset, or its expansion; returns its results."""

    def add(self, node: OnnxNode, scope: Scope) -> Sequence[Slot]:
        """Add a node as it is and infer its types; raises :class:`.ImportFault`."""

    def call(
        self, function: onnx.FunctionProto, node: OnnxNode, inner: Scope, scope: Scope
    ) -> Sequence[Slot]:
        """Import a function's nodes in place of the node that calls it."""

    def run_nodes(self, nodes: Sequence[onnx.NodeProto], scope: Scope) -> None:
        """Import nodes into the scope; failures become blockers, and their results are broken."""

    def load_initializers(self, graph: onnx.GraphProto, scope: Scope) -> None:
        """Give the scope the arrays of a graph's initializers."""

    def graph_name(self, hint: str) -> str:
        """A name for a body that no other graph of the model has; an identifier."""

    def warn(self, remark: str) -> None:
        """Add a remark for the user, unless it was added before."""


__all__ = ["ImportContext"]
