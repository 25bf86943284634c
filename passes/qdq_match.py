"""What rules on quantized products match: integers with their scales, and what these permit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..ir.axes.query import axes_of, filter_axes
from ..ir.edit import Editor
from ..ir.graph import Node, Value
from ..ir.registry import attribute
from ..ir.types import BYTES
from .pattern import Match
from .queries import splat


@dataclass
class Quantized:
    """A quantised tensor: integers, scale and zero point."""

    data: Value
    scale: Value
    zero: Value | None
    node: Node

    @property
    def per_tensor(self) -> bool:
        return self.scale.tensor_type.numel == 1

    def zero_point(self, r: Editor, dtype_of: Value) -> Value:
        return self.zero if self.zero is not None else r.scalar(0, dtype_of)


def quantized(m: Match, name: str) -> Quantized:
    """What the DequantizeLinear or QuantizeLinear that a pattern calls ``name`` goes by."""
    node = m.node(name)
    data, scale, zero = [*m.graph.inputs_of(node), None][:3]
    assert data is not None and scale is not None
    return Quantized(data, scale, zero, node)


def scale_of(q: Quantized) -> np.ndarray | None:
    """A known scale in float64."""
    return None if q.scale.constant is None else q.scale.constant.astype(np.float64)


def is_normal(scale: np.ndarray) -> bool:
    """Are all elements normal numbers of float32?"""
    limits = np.finfo(np.float32)
    size = np.abs(scale)
    return bool(np.all((size >= float(limits.tiny)) & (size <= float(limits.max))))


def channels_objection(m: Match) -> str | None:
    """An objection unless the weights have one scale, or one for each output channel."""
    w = quantized(m, "w")
    if w.data.dtype not in BYTES:
        return "only 8-bit weights are handled"
    if w.per_tensor:
        return None
    axes = axes_of(m.graph, m.node("linear"))
    outputs = () if axes is None else filter_axes(axes)
    axis = int(attribute(w.node, "axis")) % w.data.rank
    by_output = w.data.rank > 1 and outputs[-1:] == (axis,)
    return None if by_output else "weights are not quantised by output channel"


def product_scale(m: Match) -> np.ndarray | None:
    """The scale of the sums and of the bias, which includes a Gemm's ``alpha``."""
    x, w, node = scale_of(quantized(m, "x")), scale_of(quantized(m, "w")), m.node("linear")
    if x is None or w is None:
        return None
    alpha = float(attribute(node, "alpha")) if node.key == "Gemm" else 1.0
    return x.reshape(-1) * w.reshape(-1) * alpha


def one_zero_point(w: Quantized, r: Editor) -> Value:
    """The zero point of the weights, a scalar where all channels have the same: onnxruntime's
    ConvInteger takes no other.
    """
    zero = w.zero_point(r, w.data)
    same = splat(zero)
    return zero if same is None else r.scalar(same, w.data)


__all__ = [
    "Quantized", "channels_objection", "is_normal", "one_zero_point", "product_scale", "quantized",
    "scale_of",
]  # fmt: skip
