"""What rules ask of the import that they take part in.

The importer calls upgrade rules, expansions and control flow, and they call it: to place further
nodes, bodies and functions. They know it as an :class:`ImportContext`, so that their files need not
import its file.
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
    """One import under way; an :class:`~.importer.Importer` is one.

    ``needs`` is what the model needs of the symbols of its inputs, ``blockers`` what has failed so
    far; ``assumptions`` are made about conditions that decide ranks, where there are any, and
    ``undecided`` says whether such a condition was met without them.
    """

    assumptions: Assumptions | None
    undecided: bool
    needs: Needs
    symbols: Symbols
    blockers: list[Blocker]

    @property
    def used_names(self) -> set[str]:
        """The names that anything in the model uses, wherever it stands."""

    def place(self, node: OnnxNode, scope: Scope) -> Sequence[Slot]:
        """Add a node of the newest opset, or what it stands for; returns its results."""

    def add(self, node: OnnxNode, scope: Scope) -> Sequence[Slot]:
        """Add a node as it is and infer its types; raises :class:`.ImportFault`."""

    def call(
        self, function: onnx.FunctionProto, node: OnnxNode, inner: Scope, scope: Scope
    ) -> Sequence[Slot]:
        """Import a function's nodes in place of the node that calls it."""

    def run_nodes(self, nodes: Sequence[onnx.NodeProto], scope: Scope) -> None:
        """Import nodes into the scope; what fails is noted and its results are broken."""

    def load_initializers(self, graph: onnx.GraphProto, scope: Scope) -> None:
        """Give the scope the arrays of a graph's initializers."""

    def graph_name(self, hint: str) -> str:
        """A name for a body that no other graph of the model has; an identifier."""

    def warn(self, remark: str) -> None:
        """Keep a remark for the user, once."""


__all__ = ["ImportContext"]
