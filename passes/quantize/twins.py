"""Quantized twins: a graph in which each product stands beside itself with quantized operands.

    y' = f(DQ(Q(x)), DQ(Q(W)))  beside  y = f(x, W)

The operands ``x`` are the float graph's, so a twin shows what quantizing that layer alone does. One
graph has the twins of all layers, and compiled code runs it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from ...ir.graph import Graph, Node, Value
from ...ir.infer import infer_types
from ..base import PassContext
from ..ranges import Range
from .insert import weights_of
from .numbers import Parameters, activation_parameters
from .observers import run_sample
from .places import Places

Measure: TypeAlias = "Callable[[Graph, Node, Value], Sequence[Value]]"
"""Adds to a graph what is to be known of a product and its twin's result, always so many values."""


def measure_twins(
    places: Places, ranges: Mapping[str, Range], kind: str, context: PassContext, measure: Measure
) -> Iterator[dict[str, list[np.ndarray]]]:
    """What ``measure`` gives for each product, by name: one dict for each sample.

    ``ranges`` holds those of the tensors that the products read, which are integers of ``kind``.
    """
    graph, counts = _with_twins(places, ranges, kind, measure)
    run = context.runner(graph)
    inputs = {v.name for v in places.graph.inputs}
    for number, sample in enumerate(context.data):
        results = iter(run_sample(run, sample, inputs, number))
        yield {
            name: [np.asarray(next(results)) for _ in range(count)]
            for name, count in counts.items()
        }


def _with_twins(
    places: Places, ranges: Mapping[str, Range], kind: str, measure: Measure
) -> tuple[Graph, dict[str, int]]:
    """A copy of the graph whose results are the measures, and how many there are by product."""
    copy = places.graph.copy()
    found = {node.name: node for node in copy.nodes}
    outputs: list[Value] = []
    counts: dict[str, int] = {}
    for product in places.products:
        node = found[product.name]
        measures = measure(copy, node, _twin(copy, node, ranges, kind))
        counts[product.name] = len(measures)
        outputs += measures
    copy.set_outputs(outputs, [f"measure_{i}" for i in range(len(outputs))])
    copy.prune()
    infer_types(copy)
    return copy, counts


def _twin(graph: Graph, node: Node, ranges: Mapping[str, Range], kind: str) -> Value:
    """The result of a product of quantized operands."""
    operands = graph.inputs_of(node)
    for index in (0, 1):
        value = operands[index]
        assert value is not None
        if value.constant is None:
            p = activation_parameters(ranges[value.name], kind)
            q = graph.add_node("QuantizeLinear", [value, *_constants(graph, p)], {}).out()
        else:
            integers, p = weights_of(graph, node, index)
            q = graph.add_constant(integers, "q")
        attrs = {} if p.axis is None else {"axis": p.axis}
        restored = graph.add_node("DequantizeLinear", [q, *_constants(graph, p)], attrs)
        operands[index] = restored.out()
    return graph.add_node(node.op, operands, dict(node.attrs), domain=node.domain).out()


def _constants(graph: Graph, p: Parameters) -> list[Value]:
    return [graph.add_constant(p.scale, "scale"), graph.add_constant(p.zero, "zero")]


__all__ = ["Measure", "measure_twins"]
