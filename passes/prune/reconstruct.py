"""Recovery without labels: what reads channels that go makes up for them with those that stay.

A product computes ``W_K x_K + W_D x_D`` from channels that are kept and dropped. The correction
``C`` that replaces the second part best on samples is the solution of least squares

    min_C  E |W_D x_D - C x_K|^2  +  t |C|^2            C = W_D H_DK (H_KK + t I)^-1

with ``H = sum x x^T`` over all sums of all samples, of the original model: for a convolution the
products of everything that its window covers. ``t`` is a small share of the mean of the diagonal,
so that channels which are alike on the samples do not get large weights of both signs. Y. He, X.
Zhang and J. Sun, *Channel Pruning for Accelerating Very Deep Neural Networks*, 2017.
"""

from __future__ import annotations

import numpy as np

from ...ir.graph import Graph, Node
from ..base import PassContext
from ..fold_affine.linear import Channels as Linear
from ..quantize.gram import grams
from ..quantize.operands import linear_channels
from .channels import Channels

DAMPING = 1e-3
"""The share ``t`` of the mean of the diagonal of ``H``."""


def reconstruct(channels: Channels, dropped: np.ndarray, context: PassContext) -> int:
    """Correct the weights of products that read channels which are to be dropped.

    The graph still has all channels afterwards, those of ``dropped`` (bool for each) with weights
    of 0 where they are read. Returns the number of products. Raises :class:`.GraphError` for
    samples that do not fit.
    """
    graph, editor, count = channels.coupling.graph, context.editor(channels.coupling.graph), 0
    readers = [r for n in channels.coupling.maps if (r := _reader(channels, n, dropped))]
    seen = grams(graph, [product for product, _ in readers], context)
    # The graph must not change while samples run.
    found = [
        (product, corrected(_weights(graph, product), gram, gone))
        for (product, gone), gram in zip(readers, seen, strict=True)
    ]
    for product, weights in found:
        old = _array(graph, product)
        groups, inputs, outputs, positions = product.counts
        split = weights.reshape(groups, inputs, positions, outputs).transpose(0, 1, 3, 2)
        editor.begin("reconstructed", product.node)
        packed = np.ascontiguousarray(product.packed(split, old.shape).astype(old.dtype))
        editor.set_input(product.node, 1, editor.constant(packed, "weights"))
        count += 1
    editor.remove_unused()
    editor.finish()
    return count


def corrected(weights: np.ndarray, gram: np.ndarray, gone: np.ndarray) -> np.ndarray:
    """Weights ``[groups, K, outputs]`` float64, without the inputs that are ``gone``, bool
    ``[groups, K]``; ``gram`` is ``H``, ``[groups, K, K]``. Groups that go whole stay as they are.
    """
    result = weights.copy()
    for group, (h, lost) in enumerate(zip(gram, gone, strict=True)):
        kept = ~lost
        if not lost.any() or not kept.any():
            continue
        inner = h[np.ix_(kept, kept)]
        damping = max(DAMPING * float(np.diag(inner).mean()), float(np.finfo(np.float32).tiny))
        inner[np.diag_indices_from(inner)] += damping
        target = h[np.ix_(kept, lost)] @ weights[group][lost]
        result[group][kept] += np.linalg.solve(inner, target)
        result[group][lost] = 0
    return result


def _array(graph: Graph, product: Linear) -> np.ndarray:
    """The constant weights of a product."""
    value = graph.input(product.node, 1)
    assert value is not None and value.constant is not None
    return value.constant


def _weights(graph: Graph, product: Linear) -> np.ndarray:
    """Weights as ``[groups, K, outputs]`` float64, inputs of a group outside of positions."""
    groups, _, outputs, _ = product.counts
    unpacked = product.unpacked(_array(graph, product)).astype(np.float64)
    return unpacked.transpose(0, 1, 3, 2).reshape(groups, -1, outputs)


def _reader(
    channels: Channels, node: Node, dropped: np.ndarray
) -> tuple[Linear, np.ndarray] | None:
    """A product that reads channels which go, and which of its inputs these are; None for other
    nodes.
    """
    product = linear_channels(channels.coupling.graph, node)
    if product is None:
        return None
    item = channels.coupling.operand(node, 0, product.input_axis)
    label = None if item is None else channels.of(item)
    if label is None:
        return None
    groups, inputs, _, positions = product.counts
    gone = dropped[label].reshape(groups, inputs)
    if not (gone.any(1) & ~gone.all(1)).any():  # whole groups go, with their results, or none
        return None
    return product, np.repeat(gone, positions, axis=1)


__all__ = ["DAMPING", "corrected", "reconstruct"]
