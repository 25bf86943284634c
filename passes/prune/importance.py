"""Criteria: how important each channel is.

A criterion is a function of the channels and the context that gives a number for each channel, the
greater the more important. Channels of one group are compared with each other; across groups they
are compared after division by the mean of the group.

    l1, l2      the magnitudes of all weights that the channel has: those that make it and those
                that read it, as a channel that nobody reads is as useless as one that is nothing
    median      the distances of its filters to all others: near the geometric median, others can
                stand for it. Y. He, P. Liu, Z. Wang, Z. Hu and Y. Yang, *Filter Pruning via
                Geometric Median for Deep Convolutional Neural Networks Acceleration*, 2019
    batch-norm  the scales of its batch normalizations: Z. Liu, J. Li, Z. Shen, G. Huang, S. Yan and
                C. Zhang, *Learning Efficient Convolutional Networks through Network Slimming*, 2017
    activation  the magnitude, on samples, of what reads the channel: the root of the sum of squares
    random      nothing: what any other criterion has to be better than

A criterion that goes by gradients, such as Taylor's, is one more entry of :data:`CRITERIA`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

import numpy as np

from ...ir.axes.map import Kind
from ...ir.edit import Editor
from ...ir.graph import Value
from ...ir.registry import has_trait
from ...ir.traits import Trait
from ..base import PassContext
from ..quantize.measure import measured, reduced, values_by_name
from .channels import Channels
from .coupling import Parameter

Criterion: TypeAlias = "Callable[[Channels, PassContext], np.ndarray]"
"""Gives a float64 number for each channel; NaN for those that it says nothing of."""


def _weights(channels: Channels) -> Iterator[tuple[Parameter, np.ndarray, np.ndarray]]:
    """Weights of products and rows of tables: the axis, the array with that axis first as
    ``[positions, others]`` float64, and the channel of each position.
    """
    for p in channels.coupling.parameters:
        label = channels.of(p.item)
        value = channels.coupling.graph.input(p.node, p.operand)
        array = None if value is None else value.constant
        if label is None or array is None or array.ndim < 2 or not _is_weight(p):
            continue
        moved = np.moveaxis(array, p.axis, 0)
        yield p, moved.reshape(len(moved), -1).astype(np.float64), label


def _is_weight(p: Parameter) -> bool:
    """Is it a weight of a product, or what its first operand is made of, such as a table?"""
    return has_trait(p.node, Trait.CONTRACTION) or p.operand == 0


def _l1(channels: Channels, _context: PassContext) -> np.ndarray:
    scores = np.zeros(channels.count)
    for _, rows, label in _weights(channels):
        np.add.at(scores, label, np.abs(rows).sum(1))
    return scores


def _l2(channels: Channels, _context: PassContext) -> np.ndarray:
    scores = np.zeros(channels.count)
    for _, rows, label in _weights(channels):
        np.add.at(scores, label, (rows * rows).sum(1))
    return np.sqrt(scores)


def _median(channels: Channels, _context: PassContext) -> np.ndarray:
    scores = np.zeros(channels.count)
    for p, rows, label in _weights(channels):
        if p.makes:
            squares = (rows * rows).sum(1)
            apart = squares[:, None] + squares - 2 * (rows @ rows.T)
            np.add.at(scores, label, np.sqrt(np.maximum(apart, 0)).sum(1))
    return scores


def _batch_norm(channels: Channels, _context: PassContext) -> np.ndarray:
    scores = np.full(channels.count, np.nan)
    for p in channels.coupling.parameters:
        label = channels.of(p.item)
        if p.node.key == "BatchNormalization" and p.operand == 1 and label is not None:
            value = channels.coupling.graph.input(p.node, 1)
            array = None if value is None else value.constant
            assert array is not None
            scores[label] = np.nan_to_num(scores[label])
            np.add.at(scores, label, np.abs(array).astype(np.float64))
    return scores


def _random(channels: Channels, context: PassContext) -> np.ndarray:
    return context.random.random(channels.count)


def _activation(channels: Channels, context: PassContext) -> np.ndarray:
    """Raises :class:`.GraphError` for samples that do not fit."""
    graph = channels.coupling.graph
    read = list(dict.fromkeys(_read_axes(channels)))
    labels = [_label(channels, v, a) for v, a in read]

    def measure(editor: Editor) -> Sequence[Value]:
        here = values_by_name(editor.graph)
        return [_energy(editor, here[v.name], a) for v, a in read]

    scores = np.zeros(channels.count)
    for results in measured(graph, measure, context):
        for label, energy in zip(labels, results, strict=True):
            np.add.at(scores, label, np.asarray(energy, np.float64))
    return np.sqrt(scores)


def _label(channels: Channels, value: Value, axis: int) -> np.ndarray:
    item = channels.coupling.axis(value, axis)
    found = None if item is None else channels.of(item)
    assert found is not None
    return found


def _energy(editor: Editor, x: Value, axis: int) -> Value:
    """The sum of squares at each position of an axis."""
    return reduced(editor, "ReduceSumSquare", x, [a for a in range(x.rank) if a != axis])


def _read_axes(channels: Channels) -> Iterator[tuple[Value, int]]:
    """Axes of floats that products sum over, and that have channels which may be dropped."""
    coupling = channels.coupling
    for node, axes in coupling.maps.items():
        if not has_trait(node, Trait.CONTRACTION):
            continue
        for i, value in enumerate(coupling.graph.inputs_of(node)):
            described = axes.operands[i] if i < len(axes.operands) else None
            if value is None or value.is_constant or described is None:
                continue
            for a, axis in enumerate(described):
                summed = any(axes.factors[f].kind is Kind.REDUCED for p in axis for f in p.factors)
                item = coupling.axis(value, a)
                label = None if item is None else channels.of(item)
                if summed and label is not None and channels.free[label].any():
                    yield value, a


CRITERIA: Mapping[str, Criterion] = {
    "l1": _l1, "l2": _l2, "median": _median, "batch-norm": _batch_norm, "activation": _activation,
    "random": _random,
}  # fmt: skip
"""Criteria by name."""

ON_SAMPLES = frozenset(["activation"])
"""Criteria that go through samples."""


__all__ = ["CRITERIA", "ON_SAMPLES", "Criterion"]
