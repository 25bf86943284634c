"""Conditions on the sizes of ops that are imported by the function body in onnx's schema.

The bodies would broadcast or repeat operands for which the ops' documentation requires equal sizes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..ir.conditions import Relation
from .emit import Emit
from .errors import ImportFault
from .node import OnnxNode


def _flex_attention(node: OnnxNode, emit: Emit) -> None:
    """Q [batch, heads, rows, size], K [batch, groups, keys, size], V [batch, groups, keys, any]."""
    q, k, v = (emit.dims(node.required(i)) for i in range(3))
    if not len(q) == len(k) == len(v) == 4:
        raise ImportFault(f"takes tensors of rank 4, not {len(q)}, {len(k)} and {len(v)}")
    emit.require(Relation.EQUAL, q[0], k[0], "Q and K of one batch")
    emit.require(Relation.EQUAL, q[3], k[3], "Q and K of one head size")
    for a, b, what in zip(k[:3], v[:3], ("batch", "number of heads", "length"), strict=True):
        emit.require(Relation.EQUAL, a, b, f"K and V of one {what}")
    emit.require(Relation.MULTIPLE, q[1], k[1], "heads of Q in whole groups for those of K")


CONDITIONS: Mapping[str, Callable[[OnnxNode, Emit], None]] = {
    "ai.onnx.preview.FlexAttention": _flex_attention,
}
