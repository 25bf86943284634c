"""Recognition: operations that exporters decompose become one operation again.

There is a file for each family, with its equation and its ``RULES``. The recognised operation is
computed by one kernel, and more accurately: a softmax subtracts its maximum, for example.
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
    """Replaces the parts of activations, norms, softmax and attention by one operation each."""

    attention: bool = True

    name = "recognize"
    rules = _ALL

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        counts = rewrite(graph, RULES, context)
        if self.attention:
            # The patterns of attention contain what the other rules have recognised.
            counts.update(rewrite(graph, attention.RULES, context))
        return counts
