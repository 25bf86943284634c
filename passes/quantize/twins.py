"""Quantized twins: a graph in which each product stands beside itself with quantized operands.

    y' = f(DQ(Q(x)), DQ(Q(W)))  beside  y = f(x, W)

The operands ``x`` are the float graph's, so a twin shows what quantizing that layer alone does. One
graph has the twins of all layers, and compiled code runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Graph, Node, Value
from ..base import PassContext
from ..ranges import Range
from .insert import weights_of
from .measure import measuring, run_sample
from .numbers import Parameters, activation_parameters
from .places import Places

MakeTwin: TypeAlias = "Callable[[Editor, Node], Value]"
"""Adds a product with quantized operands to a graph, and gives its result."""

MeasureTwin: TypeAlias = "Callable[[Editor, Node, Value], Sequence[Value]]"
"""Adds to a graph what is to be known of a product and its twin's result, always so many values."""


def measure_twins(
    graph: Graph, products: Sequence[Node], twin: MakeTwin, measure: MeasureTwin,
    context: PassContext,
) -> Iterator[dict[str, list[np.ndarray]]]:  # fmt: skip
    """What ``measure`` gives for each product of ``graph``, by name: one dict for each sample."""
    names = [product.name for product in products]
    counts: dict[str, int] = {}

    def add(editor: Editor) -> list[Value]:
        found = {node.name: node for node in editor.graph.nodes}
        outputs: list[Value] = []
        for name in names:
            node = found[name]
            measures = measure(editor, node, twin(editor, node))
            counts[name] = len(measures)
            outputs += measures
        return outputs

    run = context.runner(measuring(graph, add))
    inputs = {v.name for v in graph.inputs}
    for number, sample in enumerate(context.data):
        results = iter(run_sample(run, sample, inputs, number))
        yield {
            name: [np.asarray(next(results)) for _ in range(count)]
            for name, count in counts.items()
        }


def static_twin(
    editor: Editor, node: Node, places: Places, ranges: Mapping[str, Range], kind: str
) -> Value:
    """The result of a product whose operands are quantized in the ``ranges`` of their tensors, to
    integers of ``kind``.
    """
    operands = editor.graph.inputs_of(node)
    for index in (0, 1):
        value = operands[index]
        assert value is not None
        if value.constant is None:
            operands[index] = rounded(
                editor, value, activation_parameters(ranges[value.name], kind)
            )
        else:
            operands[index] = dequantized(editor, *weights_of(editor.graph, node, index, places))
    return editor.clone(node, operands).out()


def rounded(editor: Editor, x: Value, p: Parameters) -> Value:
    """``DQ(Q(x))``, with one scale."""
    return editor.op(
        "DequantizeLinear", editor.op("QuantizeLinear", x, *_constants(editor, p)),
        *_constants(editor, p),
    )  # fmt: skip


def dequantized(editor: Editor, integers: np.ndarray, p: Parameters) -> Value:
    """``DQ(q)`` for constant integers."""
    attrs = {} if p.axis is None else {"axis": p.axis}
    return editor.op("DequantizeLinear", editor.constant(integers), *_constants(editor, p), **attrs)


def _constants(editor: Editor, p: Parameters) -> list[Value]:
    return [editor.constant(p.scale), editor.constant(p.zero)]


__all__ = [
    "MakeTwin", "MeasureTwin", "dequantized", "measure_twins", "rounded", "static_twin",
]  # fmt: skip
