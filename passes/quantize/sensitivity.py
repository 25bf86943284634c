"""How much each layer suffers by itself.

    ratio = sum(y ** 2) / sum((y' - y) ** 2)

with the result ``y'`` of the layer's quantized twin (:mod:`.twins`), over all samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Graph, Node, Value
from ..base import PassContext
from .measure import reduced
from .numbers import decibels
from .twins import MakeTwin, measure_twins


def layer_noise(
    graph: Graph, products: Sequence[Node], twin: MakeTwin, context: PassContext
) -> dict[str, float | None]:
    """The ratio of each product in decibels, by name; None where nothing is lost, or there is no
    signal.
    """
    sums = {node.name: np.zeros(2) for node in products}
    for sample in measure_twins(graph, products, twin, _sums, context):
        for name, found in sample.items():
            sums[name] += [float(x) for x in found]
    return {name: decibels(power, noise) for name, (power, noise) in sums.items()}


def worst_first(noise: Mapping[str, float | None]) -> list[str]:
    """Layers by their ratios, the lowest first, without those that lose nothing."""
    known = {name: ratio for name, ratio in noise.items() if ratio is not None}
    return sorted(known, key=lambda name: known[name])


def _sums(editor: Editor, node: Node, twin: Value) -> Sequence[Value]:
    """The sums of squares of a product's result, and of its difference from the twin's."""
    difference = editor.op("Sub", twin, node.out())
    return [reduced(editor, "ReduceSumSquare", x) for x in (node.out(), difference)]


__all__ = ["layer_noise", "worst_first"]
