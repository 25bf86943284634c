"""Algebraic simplification: rules that replace an operation by a simpler one, or by its input.

Each file of this folder holds the rules of one subject as ``RULES``; see their texts for the
equations. Floating-point constants may be combined (``x*a*b = x*(a*b)``), so results can differ in
the last bits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ...ir.graph import Graph
from ..base import Pass, PassContext, register_pass
from ..pattern import rewrite
from . import (
    arithmetic,
    casts,
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
    *views.RULES, *quantized.RULES, *saturation.RULES, *reductions.RULES,
)  # fmt: skip


@register_pass
@dataclass(frozen=True)
class Simplify(Pass):
    """Applies the algebraic rules until none matches."""

    name = "simplify"

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        return rewrite(graph, RULES, context)
