"""Several schemes in one model: steps on layers of their own, one after the other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from .schemes import Step

if TYPE_CHECKING:
    from ..ir.graph import Graph, Node
    from ..passes.base import PassContext, Row


@dataclass(frozen=True)
class Part:
    """The ``step`` (None: floats) for layers that match one of ``patterns``, and no part's before.

    A part without patterns takes all layers that are left. ``replaces`` says that the step puts
    other ops in the place of layers.
    """

    patterns: tuple[str, ...]
    step: Step | None
    replaces: bool = False


@dataclass(frozen=True)
class Several:
    """A step that consists of several ones, whose selections have no layer in common."""

    parts: tuple[Part, ...]

    def ranged(self, graph: Graph, context: PassContext) -> set[str]:
        return {name for _, step in self._steps() for name in step.ranged(graph, context)}

    def noise(self, graph: Graph, context: PassContext) -> dict[str, float | None]:
        found: dict[str, float | None] = {}
        for _, step in self._steps():
            own = replace(context, tables={})
            found |= step.noise(graph, own)
            add_tensors(context, own)
        return found

    def calibrate(
        self, graph: Graph, context: PassContext, leave: Callable[[Node], str | None]
    ) -> None:
        for _, step in self._steps():
            own = replace(context, tables={})
            step.calibrate(graph, own, leave)
            add_tensors(context, own)

    def quantize(
        self, graph: Graph, context: PassContext, leave: Callable[[Node], str | None]
    ) -> Mapping[str, int]:
        """Quantize a graph by each step in turn, with the ranges that tensors have in floats."""
        from ..passes.services import NoJournal

        self.calibrate(graph, context, leave)
        owners = self._owners(graph, context)
        own_rows: dict[str, Row] = {}
        others: dict[str, Row] = {}
        counts: Counter[str] = Counter()
        for number, step in self._steps():
            # The journal goes by names of tensors, which a step before may have given to others.
            own = replace(context, tables={}, journal=NoJournal())
            counts.update(step.quantize(graph, own, leave))
            own.refresh(graph)
            for row in own.tables.get("layers", ()):
                rows = own_rows if owners.get(row["layer"]) == number else others
                rows[row["layer"]] = row
            add_tensors(context, own)
        found = [own_rows.get(name, others.get(name)) for name in owners]
        context.tables["layers"] = [row for row in found if row is not None]
        return counts

    def _steps(self) -> Iterator[tuple[int, Step]]:
        """The steps with the numbers of their parts, those that replace layers last: they give the
        tensors behind them other names, by which users know ranges.
        """
        for number, part in sorted(enumerate(self.parts), key=lambda p: p[1].replaces):
            if part.step is not None:
                yield number, part.step

    def _owners(self, graph: Graph, context: PassContext) -> dict[str, int]:
        """The number of the part that each layer belongs to, by the layer's name.

        Warns of patterns that match no layer, such as misspelt ones.
        """
        from ..passes.quantize.operands import is_layer
        from ..passes.quantize.selection import matches

        layers = [n for n in graph.topological() if is_layer(graph, n)]
        for pattern in (p for part in self.parts for p in part.patterns):
            if not any(matches(pattern, node) for node in layers):
                context.warn(f"no layer matches {pattern!r} of the precision entries")

        def owner(node: Node) -> int:
            fits = (any(matches(p, node) for p in part.patterns) for part in self.parts)
            return next((i for i, fit in enumerate(fits) if fit), len(self.parts) - 1)

        return {node.name: owner(node) for node in layers}


def add_tensors(context: PassContext, own: PassContext) -> None:
    """Add the rows that a step has told of tensors that no step before has quantized."""
    rows = context.tables.setdefault("tensors", [])
    known = {row["tensor"] for row in rows}
    rows += [row for row in own.tables.get("tensors", ()) if row["tensor"] not in known]


__all__ = ["Part", "Several", "add_tensors"]
