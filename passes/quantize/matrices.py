"""Products of a computed tensor by a constant matrix, whatever op they are written as."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...ir.graph import Graph, Node, Value
from ...ir.registry import attribute
from .operands import is_float


@dataclass(frozen=True)
class MatrixProduct:
    """``x W + b`` with ``x [..., K]`` and constant ``weights [K, N]`` in float32.

    ``bias`` is ``[N]`` or None. ``node`` is the MatMul or Gemm that computes it.
    """

    node: Node
    x: Value
    weights: np.ndarray
    bias: Value | None


def matrix_product(graph: Graph, node: Node) -> MatrixProduct | str:
    """A node as such a product, or why it is none."""
    x, w, bias = [*graph.inputs_of(node), None, None, None][:3]
    is_gemm = node.key == "Gemm"
    if not is_gemm and node.key != "MatMul" or x is None or w is None:
        return "it is no product of matrices"
    if w.constant is None:
        return "its weights are computed in the run"
    weights = w.constant
    if weights.ndim != 2 or weights.dtype != np.float32:
        return f"its weights are no float32 matrix, but {weights.dtype} {list(weights.shape)}"
    if is_gemm:
        if attribute(node, "transB"):
            weights = weights.T
        plain = attribute(node, "alpha") == 1 and attribute(node, "beta") == 1
        if not plain or attribute(node, "transA"):
            return "it scales or transposes its operands"
        if bias is not None and bias.shape != (weights.shape[1],):
            return "its bias is not for each column"
    if not np.isfinite(weights).all():
        return "its weights hold infinity or NaN"
    known = is_float(x) and x.rank > 0
    return (
        MatrixProduct(node, x, weights, bias) if known else "the rank of its operand is not known"
    )


__all__ = ["MatrixProduct", "matrix_product"]
