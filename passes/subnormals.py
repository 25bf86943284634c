"""Subnormal factors become zero if their products vanish in a sum.

A factor below the least normal number (2^-126 in float32) makes a product of less than 2^-126 |x|.
If that is added to a constant of at least 2^-60, or to products by factors as large, it vanishes in
rounding, unless x is beyond 2^40. Yet CPUs take a hundred cycles and more for each such
multiplication. Training with weight decay leaves such factors, and so does pruning by scales.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..ir.edit import Editor
from ..ir.graph import Graph, Node, Value
from ..ir.registry import spec
from .base import Pass, PassContext, register_pass
from .claims import rounds
from .precision import DROWNING

_PART = 1 << 16
"""Elements that are tested at a time, so that large weights are not copied as a whole."""


@register_pass
@dataclass(frozen=True)
class Subnormals(Pass):
    """Replaces subnormal constant factors by zero, where their products vanish in sums."""

    name = "subnormals"
    claims = {
        "flushed": rounds(
            "w x + b = b, w below the normal numbers, b or another factor at least 2^-60",
            "2^-66 |x| of the greatest factor or of b",
        )
    }

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        inputs = [(node, i) for node in graph.topological() for i in range(3)]
        editor = context.editor(graph)
        return {"flushed": sum(_flush(editor, *at) for at in inputs if _is_factor(*at))}


def _is_factor(node: Node, index: int) -> bool:
    return (node.key == "Mul" and index < 2) or bool(_summed(node, index))


def _flush(editor: Editor, node: Node, index: int) -> bool:
    """Set the subnormal numbers of an input that may go to zero; False if there are none."""
    graph = editor.graph
    value = graph.input(node, index)
    array = None if value is None else value.constant
    if value is None or array is None or not _has_subnormals(array):
        return False
    if node.key == "Mul":
        drowned = _beside_addend(graph, node, array)
    else:
        drowned = _beside_factors(graph, node, index, array)
    gone = _subnormal(array) & drowned
    if not gone.any():
        return False
    flushed = np.where(gone, array.dtype.type(0), array)
    editor.begin("flushed", node)
    editor.set_input(node, index, editor.constant(flushed, value.name))
    return True


def _has_subnormals(array: np.ndarray) -> bool:
    if array.dtype not in (np.float32, np.float64):
        return False
    flat = array.reshape(-1)
    parts = (flat[start : start + _PART] for start in range(0, array.size, _PART))
    return any(_subnormal(part).any() for part in parts)


def _subnormal(array: np.ndarray) -> np.ndarray:
    return (np.abs(array) < np.finfo(array.dtype).tiny) & (array != 0)


def _beside_addend(graph: Graph, node: Node, factors: np.ndarray) -> np.ndarray:
    """Which factors make products that only a large constant is added to."""
    nothing = np.zeros(factors.shape, bool)
    uses = graph.uses(node.out())
    if len(uses) != 1 or graph.is_output(node.out()) or uses[0][0].key != "Add":
        return nothing
    consumer, place = uses[0]
    addend: Value | None = graph.input(consumer, 1 - place)
    array = None if addend is None else addend.constant
    if array is None:
        return nothing
    large = np.abs(array) >= DROWNING
    if array.ndim <= factors.ndim and _reaches(array.shape, factors.shape):
        return np.broadcast_to(large, factors.shape)
    return nothing | bool(large.all())


def _reaches(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    """Does ``shape`` broadcast to ``target``?"""
    try:
        return np.broadcast_shapes(shape, target) == target
    except ValueError:
        return False


def _beside_factors(graph: Graph, node: Node, index: int, factors: np.ndarray) -> np.ndarray:
    """The factors whose products are added to those by a large factor."""
    if factors.ndim < 2:
        return np.zeros(factors.shape, bool)
    axes = tuple(a for a in _summed(node, index) if a < factors.ndim)
    large = np.abs(factors).max(axis=axes, keepdims=True) >= DROWNING
    return np.broadcast_to(large, factors.shape)


def _summed(node: Node, index: int) -> tuple[int, ...]:
    """The axes of an input along which its products are added up; none if it is no factor."""
    known = spec(node.key)
    rule = None if known is None else known.summed_axes
    return () if rule is None else rule(node, index)
