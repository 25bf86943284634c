"""Algebraic simplification: rules that replace an operation by a simpler one, or by its input.

Each file of this folder holds the rules of one subject as ``RULES``; see their texts for the
equations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...ir.graph import Graph
from ..base import Pass, PassContext, register_pass
from ..pattern import exact_rules, rewrite
from . import (
    arithmetic,
    casts,
    dequantized,
    movement,
    quantized,
    reductions,
    saturation,
    selection,
    transposes,
    views,
)

RULES = (
    *casts.RULES, *movement.RULES, *arithmetic.RULES, *selection.RULES, *transposes.RULES,
    *views.RULES, *quantized.RULES, *dequantized.RULES, *saturation.RULES, *reductions.RULES,
)  # fmt: skip


@register_pass
@dataclass(frozen=True)
class Simplify(Pass):
    """Applies the algebraic rules until none matches; with ``exact`` only those that are."""

    exact: bool = False

    name = "simplify"
    rules = RULES

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        return rewrite(graph, exact_rules(RULES) if self.exact else RULES, context)
