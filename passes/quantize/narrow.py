"""Weights in floats of 16 bits, which are widened where they are read.

    f(x, W)   becomes   f(x, Cast(R(W)))      R rounds to the nearest float16 or bfloat16

Sums and activations stay float32. Kernels load 16-bit weights and widen them in registers, so a
model is half as large, in its file and in memory. That is faster where weights come from memory,
and slower where they are in the cache and few rows share them, as in convolutions. float16 rounds
to 11 binary digits and ends at 65504; bfloat16 has the range of float32 and 8 digits.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Graph, Node, Value
from ...ir.onnx_types import element_code
from ...ir.registry import has_trait
from ...ir.traits import Trait
from ...ir.types import to_numpy_dtype
from ..base import PassContext, register_pass
from ..claims import lossy
from ..queries import widens_weights
from .numbers import decibels
from .operands import filter_axis, looked_up
from .places import Objection
from .selection import Selection
from .weights_only import WeightsOnly

_LEAST = 16
"""Weights of fewer elements are no smaller in any form than what describes them."""


class NarrowFloat(str, Enum):
    """A float of 16 bits."""

    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"


@register_pass
@dataclass(frozen=True)
class NarrowWeights(WeightsOnly):
    """Rounds constant weights of products and tables that are looked up to ``kind``, in front of a
    Cast to float32.

    A layer with a weight beyond the largest number of ``kind`` stays as it is. ``only`` and
    ``exclude`` are patterns of layers.
    """

    kind: NarrowFloat = NarrowFloat.FLOAT16
    only: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    name = "narrow_weights"
    claims = {
        "narrow": lossy(
            "W = R(W)", "2^-11 |W| and 2^-25 as float16, 2^-8 |W| as bfloat16, for each weight"
        )
    }

    def quantize(self, graph: Graph, context: PassContext, leave: Objection) -> Mapping[str, int]:
        """Round the weights of the selected layers, but for those that ``leave`` objects to."""
        kind = NarrowFloat(self.kind).value
        selected = Selection(self.only, self.exclude)
        rounding = _Rounding(context.editor(graph), kind)
        for node in list(graph.topological()):
            index = _weights_index(graph, node)
            if index is None:
                continue
            reason = _unfit(graph, node, index, kind) or selected.objection(node) or leave(node)
            ratio = None if reason else rounding.narrow(node, index)
            context.tell(
                "layers", layer=node.name, op=node.key, onnx=list(node.origins.names),
                scheme="float" if reason else f"{kind} weights", reason=reason or "",
                decibels=ratio,
            )  # fmt: skip
        rounding.editor.finish()
        return {"narrow": rounding.count}


class _Rounding:
    """Rounds weights; those that several layers read are rounded once."""

    def __init__(self, editor: Editor, kind: str) -> None:
        self.editor, self.count = editor, 0
        self._kind = kind
        self._done: dict[Value, tuple[Value, float | None]] = {}

    def narrow(self, node: Node, index: int) -> float | None:
        """Round a layer's weights; returns the ratio of signal to noise in decibels."""
        weights = self.editor.graph.input(node, index)
        assert weights is not None
        if weights not in self._done:
            self._done[weights] = self._rounded(node, weights)
        value, ratio = self._done[weights]
        self.editor.set_input(node, index, value)
        self.count += 1
        return ratio

    def _rounded(self, node: Node, weights: Value) -> tuple[Value, float | None]:
        exact = weights.constant
        assert exact is not None
        stored = exact.astype(to_numpy_dtype(self._kind))
        self.editor.begin("narrow", node, hint=weights.name)
        held = self.editor.constant(stored, weights.name)
        value = self.editor.op("Cast", held, to=element_code("float32"))
        error = np.mean((stored.astype(np.float32) - exact) ** 2, dtype=np.float64)
        return value, decibels(float(np.mean(exact**2, dtype=np.float64)), float(error))


def _weights_index(graph: Graph, node: Node) -> int | None:
    """The input of a layer that is its weights: of a product its second, of a lookup its table.

    None for other nodes.
    """
    if has_trait(node, Trait.CONTRACTION):
        return 1
    return None if looked_up(graph, node) is None else 0


def _unfit(graph: Graph, node: Node, index: int, kind: str) -> str | None:
    """Why weights stay as they are, or None."""
    value = graph.input(node, index)
    weights = None if value is None else value.constant
    if value is None or weights is None:
        return "its weights are computed in the run"
    if weights.dtype != np.float32 or weights.ndim < 2:
        return f"its weights are no float32 matrix, but {value.dtype} {list(weights.shape)}"
    if index and not (widens_weights(node) and filter_axis(graph, node, index) is not None):
        return "no kernel widens its weights"
    if weights.size < _LEAST:
        return f"it has fewer than {_LEAST} weights"
    return _beyond(weights, kind)


def _beyond(weights: np.ndarray, kind: str) -> str | None:
    """An objection where a weight would become infinite, or is no number."""
    if not np.isfinite(weights).all():
        return "its weights hold infinity or NaN"
    with np.errstate(over="ignore"):
        largest = np.max(np.abs(weights)).astype(to_numpy_dtype(kind))
    if np.isfinite(largest):
        return None
    return f"its largest weight, {np.max(np.abs(weights)):.6g}, is beyond those of {kind}"


__all__ = ["NarrowFloat", "NarrowWeights"]
