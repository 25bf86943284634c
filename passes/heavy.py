"""Which operations are heavy: each becomes a kernel of its own, with what is cheap around it."""

from __future__ import annotations

from ..ir.graph import Node
from ..ir.registry import spec
from ..ir.traits import Trait

ANCHORS = frozenset({
    "Conv", "ConvTranspose", "ConvInteger", "DeformConv", "QLinearConv", "MatMul", "MatMulInteger",
    "QLinearMatMul", "Gemm", "Einsum", "com.microsoft.FusedMatMul", "com.microsoft.FusedGemm",
    "com.microsoft.QGemm", "MaxPool", "AveragePool", "LpPool", "GlobalAveragePool",
    "GlobalMaxPool", "GlobalLpPool", "Softmax", "LogSoftmax", "Hardmax", "LayerNormalization",
    "RMSNormalization", "InstanceNormalization", "GroupNormalization", "LpNormalization",
    "MeanVarianceNormalization", "LRN", "kiln.Attention", "CumSum",
})  # fmt: skip
"""Ops that are heavy by name, whatever their traits say."""

_TRAITS = frozenset({Trait.ANCHOR, Trait.REDUCTION})


def is_anchor(node: Node) -> bool:
    """Is ``node`` heavy?"""
    if node.key in ANCHORS:
        return True
    found = spec(node.key)
    return found is not None and bool(found.traits & _TRAITS)


__all__ = ["ANCHORS", "is_anchor"]
