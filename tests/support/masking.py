"""A model whose channels count for 0 where they are summed over: what pruning is compared with.

It knows the ops that sum over channels by their names, and nothing of axis maps.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from graphkiln.ir.edit import Editor
from graphkiln.ir.graph import Graph, Node, Value
from graphkiln.ir.infer import infer_types
from graphkiln.ir.types import to_numpy_dtype

SUMS = {
    "Conv": (0,), "ConvTranspose": (0,), "Gemm": (0, 1), "MatMul": (0, 1), "Einsum": (0, 1),
    "ReduceSum": (0,), "ReduceSumSquare": (0,), "ReduceL1": (0,),
    "LSTM": (0,), "GRU": (0,), "RNN": (0,),
}  # fmt: skip
"""Operands that ops sum over; other axes of them are those of results, which are dropped, too."""

RECURRENT = ("LSTM", "GRU", "RNN")


def masked(graph: Graph, dropped: Mapping[str, Mapping[int, tuple[int, ...]]]) -> Graph:
    """A copy of ``graph`` with 0 at the positions that its values lose, where these are summed."""
    copy = graph.copy()
    editor = Editor(copy, infer_types(copy))
    for node in copy.topological():
        editor.begin("mask", node)
        for i in SUMS.get(node.key, ()):
            value = copy.input(node, i)
            if value is not None and value.name in dropped:
                editor.set_input(node, i, _with_zeros(editor, value, dropped[value.name]))
        if node.key in RECURRENT:
            _forget(editor, node, dropped)
    return copy


def _with_zeros(editor: Editor, value: Value, axes: Mapping[int, tuple[int, ...]]) -> Value:
    for axis, positions in axes.items():
        shape = [1] * value.rank
        size = value.shape[axis]
        assert isinstance(size, int)
        shape[axis] = size
        mask = np.ones(size, to_numpy_dtype(value.tensor_type.dtype))
        mask[list(positions)] = 0
        value = editor.op("Mul", value, editor.constant(mask.reshape(shape)))
    return value


def _forget(
    editor: Editor, node: Node, dropped: Mapping[str, Mapping[int, tuple[int, ...]]]
) -> None:
    """Hidden elements that are dropped count for 0 in the next step."""
    result, weights = node.out(), editor.graph.input(node, 2)
    axes = dropped.get(result.name, {})
    if weights is not None and result.rank - 1 in axes:
        assert weights.constant is not None
        zeroed = weights.constant.copy()
        zeroed[..., list(axes[result.rank - 1])] = 0
        editor.set_input(node, 2, editor.constant(zeroed))


__all__ = ["masked"]
