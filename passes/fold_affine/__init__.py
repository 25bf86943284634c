"""Affine folding: scales, shifts and pads next to a linear op become part of it.

    BatchNormalization(y) = s*y + t        s = scale / sqrt(var + epsilon), t = bias - mean*s
    s * conv(x, W, b) + t = conv(x, s*W, s*b + t)              s, t by output channel
    conv(s*x, W, b)       = conv(x, W*s, b)                    s by input channel
    conv(x + t, W, b)     = conv(x, W, b + sum(W*t))           where nothing is padded
    conv(pad(x), W, b)    = conv(x, W, b) with larger pads     where zeros are padded

and likewise for ConvTranspose, Gemm and MatMul with constant weights. A batch norm that is
next to no such op becomes a multiplication and an addition.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...ir.graph import Graph
from ..base import Pass, PassContext, register_pass
from ..pattern import rewrite
from . import after, batch_norm, before, pads

RULES = (*batch_norm.RULES, *after.RULES, *before.RULES, *pads.RULES)


@register_pass
@dataclass(frozen=True)
class FoldAffine(Pass):
    """Moves batch norms, per-channel constants and pads into neighbouring linear ops."""

    name = "fold_affine"
    rules = RULES

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        return rewrite(graph, RULES, context)
