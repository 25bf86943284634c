"""Gram matrices of what products add up: ``H = sum x x^T`` over all samples.

``x`` are the operands of one sum: rows of a matrix, or what a window covers. Those of a convolution
are the results of the same convolution with unit filters, one for each input of a group and
position of the window.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Graph, Node, Value
from ..base import PassContext
from ..fold_affine.linear import Channels
from .measure import measured, values_by_name
from .operands import filter_axis

_MOST_NUMBERS = 1 << 26
"""Elements of Gram matrices that are kept at once; more products take another round of samples."""


def grams(graph: Graph, products: Sequence[Channels], context: PassContext) -> Iterator[np.ndarray]:
    """The Gram matrices of each product, float64 ``[groups, K, K]`` with ``K`` the length of the
    sums. Products that read the rows of one tensor share one.

    Until the last one is taken, the graph may not be changed.
    """
    for group in _together(graph, products):
        found = _observed(graph, group, context)
        for product in group:
            yield found[_key(graph, product)]


def sum_length(product: Channels) -> int:
    """The number of products in a sum."""
    return product.counts[1] * product.counts[3]


def _together(graph: Graph, products: Sequence[Channels]) -> Iterator[list[Channels]]:
    """Products whose matrices are kept at once."""
    group: list[Channels] = []
    held: dict[str, int] = {}
    for product in products:
        size = product.groups * sum_length(product) ** 2
        if group and sum(held.values()) + size > _MOST_NUMBERS:
            yield group
            group, held = [], {}
        group.append(product)
        held[_key(graph, product)] = size
    if group:
        yield group


def _key(graph: Graph, product: Channels) -> str:
    """A name for what a product reads, the same for those that read the same."""
    x = graph.input(product.node, 0)
    assert x is not None
    return x.name if _reads_rows(x, product) else product.node.out().name


def _reads_rows(x: Value, product: Channels) -> bool:
    """Are the operands of a sum a row of ``x`` along its last axis?"""
    return product.groups == product.counts[3] == 1 and product.input_axis == x.rank - 1


def _observed(
    graph: Graph, products: Sequence[Channels], context: PassContext
) -> dict[str, np.ndarray]:
    each = {_key(graph, product): product for product in products}

    def measure(editor: Editor) -> list[Value]:
        found = values_by_name(editor.graph)
        return [_gram(editor, found[p.node.out().name].node, p) for p in each.values()]

    found = {key: np.zeros((p.groups, sum_length(p), sum_length(p))) for key, p in each.items()}
    for results in measured(graph, measure, context):
        for gram, result in zip(found.values(), results, strict=True):
            gram += result
    return found


def _gram(editor: Editor, node: Node, product: Channels) -> Value:
    """``X X^T`` with the operands ``X`` ``[groups, K, sums]`` of all sums."""
    x, inner = editor.graph.input(node, 0), sum_length(product)
    assert x is not None
    if _reads_rows(x, product):
        rows = editor.op("Reshape", x, editor.constant(np.array([-1, inner])))
        return editor.op("MatMul", editor.op("Transpose", rows, perm=(1, 0)), rows)
    patches = editor.clone(node, [x, editor.constant(_unit_filters(editor.graph, node, product))])
    at = product.output_axis
    others = [a for a in range(patches.out().rank) if a != at]
    first = editor.op("Transpose", patches.out(), perm=(at, *others))
    shape = editor.constant(np.array([product.groups, inner, -1]))
    columns = editor.op("Reshape", first, shape)
    return editor.op("MatMul", columns, editor.op("Transpose", columns, perm=(0, 2, 1)))


def _unit_filters(graph: Graph, node: Node, product: Channels) -> np.ndarray:
    """Weights of which filter ``k`` of each group is 1 at operand ``k``, and 0 elsewhere."""
    groups, inputs, outputs, positions = product.counts
    inner, axis, w = inputs * positions, filter_axis(graph, node, 1), graph.input(node, 1)
    assert w is not None and w.constant is not None and axis is not None
    units = np.eye(inner, dtype=np.float32).reshape(inputs, positions, inner).transpose(0, 2, 1)
    shape = list(w.constant.shape)
    shape[axis] = shape[axis] // outputs * inner
    every = np.broadcast_to(units, (groups, *units.shape))
    return np.ascontiguousarray(product.with_outputs(inner).packed(every, tuple(shape)))


__all__ = ["grams", "sum_length"]
