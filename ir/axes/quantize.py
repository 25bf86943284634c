"""Axis maps of quantization: parameters for the whole tensor, along an axis, or by blocks."""

from __future__ import annotations

from ..dims import known_equal
from ..shapes import normalize_axis
from .build import Builder, rule
from .map import Axis, AxisMap, whole
from .reduce import normalized


@rule
def quantize(b: Builder) -> AxisMap | None:
    """``QuantizeLinear`` and ``DequantizeLinear``: elements, and the axes of their parameters.

    An axis with parameters by blocks is (block, element of it), or opaque if the last block is not
    full.
    """
    rank, block = len(b.shape()), int(b.attr("block_size") or 0)
    axes = b.axes(b.shape())
    axis = 1 if b.attr("axis") is None else int(b.attr("axis"))
    parameter: Axis | None = None
    if -rank <= axis < rank:
        at = normalize_axis(axis, rank)
        size, parameter = b.shape()[at], axes[at]
        if block:
            count = b.shape(1)[at]
            if known_equal(size, count * block):
                outer = b.factor(count)
                inner = b.factor(block, fixed=True)
                axes[at], parameter = whole(outer, inner), whole(outer)
            else:
                b.withdraw(axes[at])
                parameter = b.opaque(count)
    for i in (1, 2):
        if not b.has(i) or parameter is None:
            continue
        if block:
            b.take(i, [*axes[:at], parameter, *axes[at + 1 :]])
        else:
            b.entries(i, parameter, size)
    b.take(0, axes)
    b.give(axes)
    return b.build()


@rule
def dynamic_quantize(b: Builder) -> AxisMap | None:
    """Each result depends on the range of all elements; scale and zero point are scalars."""
    axes = normalized(b, range(len(b.shape())))
    b.take(0, axes)
    b.give(axes)
    for k in range(1, len(b.node.outputs)):
        b.give([], k)
    return b.build()


__all__ = ["dynamic_quantize", "quantize"]
