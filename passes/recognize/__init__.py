"""Recognition: operations that exporters take apart become one operation again.

One file for each family, with its equation and its ``RULES``. What is recognised is computed more
accurately (a softmax subtracts its maximum) and by one kernel.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...ir.graph import Graph
from ..base import Pass, PassContext, register_pass
from ..pattern import rewrite
from . import activation, attention, gelu, group_norm, layer_norm, rms_norm, softmax

RULES = (
    *gelu.RULES, *activation.RULES, *softmax.RULES, *layer_norm.RULES, *rms_norm.RULES,
    *group_norm.RULES,
)  # fmt: skip


_ALL = (*RULES, *attention.RULES)


@register_pass
@dataclass(frozen=True)
class Recognize(Pass):
    """Finds activations, norms, softmax and attention in their parts."""

    attention: bool = True

    name = "recognize"
    rules = _ALL

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        counts = rewrite(graph, RULES, context)
        if self.attention:
            # Attention is made of what the other rules leave.
            counts.update(rewrite(graph, attention.RULES, context))
        return counts
