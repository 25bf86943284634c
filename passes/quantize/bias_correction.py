"""Bias correction: what quantization adds to the mean of a channel is taken out of its bias.

    b <- b - E[y' - y]

with the result ``y'`` of the layer's quantized twin (:mod:`.twins`) and the mean over all samples
and places of a channel. M. Nagel, M. van Baalen, T. Blankevoort and M. Welling, *Data-Free
Quantization Through Weight Equalization and Bias Correction*, 2019. Rounding to the nearest is
right on average over weights, not for the few weights of one channel and the operands that it
meets, so each channel's mean is shifted a little, and the layers behind it add up such shifts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Graph, Node, Value
from ..base import PassContext
from ..ranges import Range
from .insert import BIAS
from .measure import reduced
from .places import Places
from .twins import measure_twins, static_twin

_CHANNELS = 1
"""The axis of channels in the results of ops that have a bias."""


def correct_biases(
    places: Places, ranges: Mapping[str, Range], kind: str, context: PassContext, editor: Editor
) -> int:
    """Correct the constant biases of the products; returns how many there are.

    Products without a bias, or with one that is not for each channel, stay as they are.
    """
    graph = places.graph
    biases = {n.name: b for n in places.products if (b := _bias(graph, n)) is not None}
    if not biases:
        return 0
    shifts = {name: np.zeros(bias.shape) for name, bias in biases.items()}
    count = 0
    twin = partial(static_twin, ranges=ranges, kind=kind, codes=places.codes)
    for sample in measure_twins(graph, places.products, twin, _mean_shift, context):
        for name in biases:
            shifts[name] += sample[name][0]
        count += 1
    for node in places.products:
        if node.name in biases and count:
            editor.begin("means", node, hint=f"{node.name}_bias")
            corrected = biases[node.name] - shifts[node.name] / count
            editor.set_input(node, BIAS, editor.constant(corrected.astype(np.float32)))
    return len(biases)


def _bias(graph: Graph, node: Node) -> np.ndarray | None:
    value = graph.input(node, BIAS)
    bias = None if value is None else value.constant
    out = node.out().shape
    is_by_channel = bias is not None and len(out) > _CHANNELS and bias.shape == (out[_CHANNELS],)
    return bias if is_by_channel else None


def _mean_shift(editor: Editor, node: Node, twin: Value) -> Sequence[Value]:
    """The mean of the difference for each channel; nothing where there is no bias to correct."""
    if _bias(editor.graph, node) is None:
        return []
    others = [i for i in range(node.out().rank) if i != _CHANNELS]
    return [reduced(editor, "ReduceMean", editor.op("Sub", twin, node.out()), others)]


__all__ = ["correct_biases"]
