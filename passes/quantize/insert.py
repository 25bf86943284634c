"""Puts QuantizeLinear and DequantizeLinear where tensors are quantized."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Graph, Node, Value
from ..ranges import Range
from .numbers import (
    Parameters,
    activation_parameters,
    bias_parameters,
    decibels,
    quantized,
    quantized_bias,
    restored,
    weight_parameters,
)
from .operands import filter_axis
from .places import Places

BIAS = 2
"""The input of convolutions and products that is added to the result."""


def insert_quantizers(
    editor: Editor, places: Places, ranges: Mapping[str, Range], kind: str, done: Inserted
) -> None:
    """Quantize the tensors of ``places``, those of a run to integers of ``kind``.

    ``ranges`` holds the range of each of them, by name. What is inserted is counted in ``done``.
    """
    insertion = _Insertion(places, editor, done)
    for use in places.weights:
        insertion.weights(use.node, use.index)
    scales = {}
    for value, uses in places.tensors.items():
        given = activation_parameters(ranges[value.name], kind)
        dequantized = insertion.pair(value, given)
        for use in uses:
            editor.set_input(use.node, use.index, dequantized)
            scales[use.node, use.index] = given
    for node in places.products:
        if (node, 0) in scales:
            insertion.bias(node, scales[node, 0])
    editor.finish()


@dataclass
class Inserted:
    """How many weights, biases and tensors of a run were quantized, and the ratio of signal to
    noise of the weights of each layer, in decibels.
    """

    counts: Counter[str] = field(default_factory=Counter)
    decibels: dict[Node, float | None] = field(default_factory=dict)


class _Insertion:
    """Makes the edits."""

    def __init__(self, places: Places, editor: Editor, done: Inserted) -> None:
        self._graph, self._editor, self.done = places.graph, editor, done
        self._places = places
        self._scales: dict[Node, Parameters] = {}

    def pair(self, value: Value, p: Parameters) -> Value:
        """``value`` of a run, quantized and dequantized."""
        editor = self._editor
        editor.begin("activations", value.node, hint=value.name)
        parameters = [editor.constant(p.scale), editor.constant(p.zero)]
        q = editor.node("QuantizeLinear", [value, *parameters]).out()
        self.done.counts["activations"] += 1
        return editor.node("DequantizeLinear", [q, *parameters]).out()

    def weights(self, node: Node, index: int) -> None:
        """Replace constant weights by int8 ones that are dequantized."""
        weights = self._constant(node, index)
        assert weights is not None
        integers, p = weights_of(self._graph, node, index, self._places)
        error = np.mean((restored(integers, p) - weights) ** 2, dtype=np.float64)
        power = np.mean(weights**2, dtype=np.float64)
        self.done.decibels[node] = decibels(float(power), float(error))
        self._replace("weights", node, index, integers, p)
        if index == 1:
            self._scales[node] = p

    def bias(self, node: Node, operand: Parameters) -> None:
        """Replace a constant bias by int32 numbers, which are added to the sums of products.

        It stays as it is where such numbers do not hold it.
        """
        bias, weights = self._constant(node, BIAS), self._scales.get(node)
        if bias is None or bias.ndim != 1 or weights is None or bias.dtype != np.float32:
            return
        if weights.scale.size not in (1, bias.size):
            return
        p = bias_parameters(operand, weights)
        integers = quantized_bias(bias, p)
        if integers is not None:
            self._replace("biases", node, BIAS, integers, p)

    def _constant(self, node: Node, index: int) -> np.ndarray | None:
        value = self._graph.input(node, index)
        return None if value is None else value.constant

    def _replace(
        self, rule: str, node: Node, index: int, integers: np.ndarray, p: Parameters
    ) -> None:
        editor, old = self._editor, self._graph.input(node, index)
        assert old is not None
        editor.begin(rule, node, hint=old.name)
        attrs = {} if p.axis is None else {"axis": p.axis}
        given = [editor.constant(integers), editor.constant(p.scale), editor.constant(p.zero)]
        editor.set_input(node, index, editor.node("DequantizeLinear", given, attrs).out())
        self.done.counts[rule] += 1


def weights_of(
    graph: Graph, node: Node, index: int, places: Places
) -> tuple[np.ndarray, Parameters]:
    """The int8 form of the constant operand ``index`` of one of the products, and its parameters.

    The node may be that of a copy of the graph.
    """
    p = weight_scales(graph, node, index, places)
    if index == 1 and node.name in places.codes:
        return places.codes[node.name], p
    return quantized(_weights(graph, node, index), p, pairing=places.pairing(node, index)), p


def weight_scales(graph: Graph, node: Node, index: int, places: Places) -> Parameters:
    """The parameters of the int8 form of the constant operand ``index`` of a product."""
    weights, axis = _weights(graph, node, index), filter_axis(graph, node, index)
    return weight_parameters(weights, axis, pairing=places.pairing(node, index))


def _weights(graph: Graph, node: Node, index: int) -> np.ndarray:
    value = graph.input(node, index)
    assert value is not None and value.constant is not None
    return value.constant


__all__ = ["BIAS", "Inserted", "insert_quantizers", "weight_scales", "weights_of"]
