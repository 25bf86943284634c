"""Another scheme, in the place of floats, for layers that a first one would cost too much."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .schemes import Step
from .several import add_tensors

if TYPE_CHECKING:
    from ..ir.graph import Graph, Node
    from ..passes.base import PassContext


@dataclass(frozen=True)
class WithFallback:
    """``first``, and ``other`` for the layers that are to be left.

    Layers that ``other`` cannot quantize stay floats. What suffers most is asked of ``first``.
    """

    first: Step
    other: Step

    def ranged(self, graph: Graph, context: PassContext) -> set[str]:
        return self.first.ranged(graph, context) | self.other.ranged(graph, context)

    def noise(self, graph: Graph, context: PassContext) -> dict[str, float | None]:
        return self.first.noise(graph, context)

    def calibrate(
        self, graph: Graph, context: PassContext, leave: Callable[[Node], str | None]
    ) -> None:
        self.first.calibrate(graph, context, leave)

    def quantize(
        self, graph: Graph, context: PassContext, leave: Callable[[Node], str | None]
    ) -> Mapping[str, int]:
        """Quantize a graph by the first step, then the layers that ``leave`` gives a reason for by
        the other one.
        """
        from ..passes.services import NoJournal

        # Nodes and their names stay where the first step leaves them.
        left = {n.name: reason for n in graph.nodes if (reason := leave(n)) is not None}

        def is_taken(node: Node) -> str | None:
            return None if node.name in left else "it is not left"

        if left:  # by the ranges that tensors have in floats
            self.other.calibrate(graph, replace(context, tables={}), is_taken)
        counts = dict(self.first.quantize(graph, context, leave))
        if not left:
            return counts
        context.refresh(graph)
        # The journal goes by names of tensors, which the first step may have given to others.
        own = replace(context, tables={}, journal=NoJournal())
        found = self.other.quantize(graph, own, is_taken)
        for name, count in found.items():
            counts[name] = counts.get(name, 0) + count
        add_tensors(context, own)
        told = {row["layer"]: row for row in own.tables.get("layers", ()) if row["layer"] in left}
        context.tables["layers"] = [
            _row(row, told.get(row["layer"]), left) for row in context.tables.get("layers", ())
        ]
        return counts


def _row(row: Mapping[str, object], other: Mapping[str, object] | None, left: Mapping[str, str]
) -> Mapping[str, object]:  # fmt: skip
    """What is told of a layer: by the other step where it was left for that."""
    if other is None or other["scheme"] == "float" or row["scheme"] != "float":
        return row
    return {**row, "scheme": other["scheme"], "decibels": other["decibels"],
            "reason": left[str(row["layer"])]}  # fmt: skip


__all__ = ["WithFallback"]
