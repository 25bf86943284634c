"""What passes share that change weights and leave activations as they are."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping

from ...ir.graph import Graph
from ..base import PassContext
from .outermost import Outermost
from .places import Objection


class WeightsOnly(Outermost):
    """A pass whose rows of the table ``layers`` say what each layer's weights have become."""

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        return self.quantize(graph, context, lambda _: None)

    @abstractmethod
    def quantize(self, graph: Graph, context: PassContext, leave: Objection) -> Mapping[str, int]:
        """Change the weights of the selected layers, but for those that ``leave`` objects to."""

    def ranged(self, graph: Graph, context: PassContext) -> set[str]:
        """None: activations stay floats."""
        return set()

    def calibrate(self, graph: Graph, context: PassContext, leave: Objection) -> None:
        """Nothing: no ranges are used."""

    def noise(self, graph: Graph, context: PassContext) -> dict[str, float | None]:
        """The ratio of signal to noise of each selected layer in decibels, by the layer's name."""
        self.quantize(graph.copy(), context, lambda _: None)
        rows = context.tables.get("layers", ())
        return {row["layer"]: row["decibels"] for row in rows if row["scheme"] != "float"}


__all__ = ["WeightsOnly"]
