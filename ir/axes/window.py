"""Axis maps of convolutions and pools: groups of channels, filters, sliding windows."""

from __future__ import annotations

from collections.abc import Sequence

from ..types import Shape
from ..windows import Window, conv_window, pool_window, transpose_window
from .build import Builder, Rule, rule
from .map import Axis, AxisMap, Combine, Kind, Piece, whole


def windows(b: Builder, window: Window, image: Shape) -> tuple[list[Axis], list[Axis]]:
    """The spatial axes of operand and result; ``image`` are the result's extents."""
    inside: list[Axis] = []
    outside: list[Axis] = []
    for d, extent in enumerate(image):
        single = window.kernel[d] == 1 and window.begin[d] == 0 and window.end[d] == 0
        f = b.factor(extent, Kind.MAPPED if single else Kind.WINDOWED)
        inside.append((Piece((f,), -window.begin[d], window.strides[d], window.reach(d)),))
        outside.append(whole(f))
    return inside, outside


def convolution(
    x: int = 0, w: int = 1, bias: int | None = None, by_filter: Sequence[int] = (),
    residual: int | None = None, combine: Combine | None = None,
) -> Rule:  # fmt: skip
    """The rule of a convolution with data, weights and bias at these operands.

    Data ``[N, (g, c), image]``, weights ``[(g, m), c, window]``, result ``[N, (g, m), image]``.
    ``by_filter`` are parameters of one number or one for each filter, ``residual`` an addend of
    the result's shape. ``combine`` holds where no activation follows.
    """

    @rule
    def describe(b: Builder) -> AxisMap | None:
        shape, weights = b.shape(x), b.shape(w)
        group = int(b.attr("group") or 1)
        g, n = b.factor(group), whole(b.factor(shape[0]))
        c = b.reduced(weights[1], None if b.attr("activation") else combine)
        m = b.factor(weights[0] // group)
        filters = whole(g, m)
        inside, outside = windows(b, conv_window(b.node, shape[2:], weights[2:]), b.out()[2:])
        b.take(x, [n, whole(g, c), *inside])
        b.take(w, [filters, whole(c), *(b.opaque(k) for k in weights[2:])])
        addends = [i for i in (bias, residual) if i is not None]
        for i in by_filter if bias is None else (*by_filter, bias):
            b.entries(i, filters, weights[0])
        if residual is not None:
            b.take(residual, [n, filters, *outside])
        b.give([n, filters, *outside])
        return b.build(addends=addends, counts={"group": (g,)})

    return describe


@rule
def transposed_convolution(b: Builder) -> AxisMap | None:
    """``ConvTranspose``: an element of ``[N, (g, c), image]`` is spread over a window.

    Weights ``[(g, c), m, window]``, result ``[N, (g, m), image]``.
    """
    shape, weights = b.shape(), b.shape(1)
    group = int(b.attr("group") or 1)
    g, n = b.factor(group), whole(b.factor(shape[0]))
    c, m = b.reduced(weights[0] // group, Combine.SUM), b.factor(weights[1])
    window, _ = transpose_window(b.node, shape[2:], weights[2:])
    inside: list[Axis] = []
    outside: list[Axis] = []
    for d, extent in enumerate(shape[2:]):
        f = b.factor(extent, Kind.WINDOWED)
        inside.append(whole(f))
        outside.append((Piece((f,), -window.begin[d], window.strides[d], window.reach(d)),))
    b.take(0, [n, whole(g, c), *inside])
    b.take(1, [whole(g, c), whole(m), *(b.opaque(k) for k in weights[2:])])
    b.take(2, [whole(g, m)])
    b.give([n, whole(g, m), *outside])
    return b.build(addends=[2], counts={"group": (g,)})


@rule
def deformable_convolution(b: Builder) -> AxisMap | None:
    """``DeformConv``: the windows' positions are data, and may differ by groups of channels."""
    shape, weights = b.shape(), b.shape(1)
    group, shared = int(b.attr("group") or 1), int(b.attr("offset_group") or 1) == 1
    n, image = whole(b.factor(shape[0])), [b.opaque(d) for d in b.out()[2:]]
    g, m = b.factor(group), b.factor(weights[0] // group)
    c = b.reduced(weights[1], Combine.SUM)
    for f in () if shared else (g, c):
        b.withdraw(whole(f))
    b.take(0, [n, whole(g, c), *(b.opaque(d) for d in shape[2:])])
    b.take(1, [whole(g, m), whole(c), *(b.opaque(k) for k in weights[2:])])
    for i in (2, 4):
        b.take(i, [n, *(b.opaque(d) for d in b.shape(i)[1:])] if b.has(i) else [])
    b.take(3, [whole(g, m)])
    b.give([n, whole(g, m), *image])
    return b.build(addends=[3], counts={"group": (g,)})


@rule
def causal_convolution(b: Builder) -> AxisMap | None:
    """``CausalConvWithState``: depthwise, along the length, with the state before it."""
    batch, channels, length = b.shape()
    n, c = whole(b.factor(batch)), whole(b.factor(channels))
    b.take(0, [n, c, b.opaque(length)])
    b.take(1, [c, b.opaque(1), b.opaque(b.shape(1)[2])])
    b.take(2, [c])
    b.take(3, [n, c, b.opaque(b.shape(3)[2])] if b.has(3) else [])
    b.give([n, c, b.opaque(length)])
    if len(b.node.outputs) > 1:
        b.give([n, c, b.opaque(b.out(1)[2])], 1)
    return b.build()


# ---- pools ---------------------------------------------------------------------------------------


@rule
def pool(b: Builder) -> AxisMap | None:
    """``[N, C, image]``, or ``[N, image, C]`` with ``channels_last``.

    Nothing is known of the indices that ``MaxPool`` returns, which are flat indices into the
    tensor.
    """
    n, *middle, last = b.shape()
    channels_last = bool(b.attr("channels_last"))
    channels, spatial = (last, middle) if channels_last else (middle[0], [*middle[1:], last])
    image = b.out()[1:-1] if channels_last else b.out()[2:]
    batch, c = b.axes((n, channels))
    inside, outside = windows(b, pool_window(b.node, tuple(spatial)), image)
    b.take(0, [batch, *inside, c] if channels_last else [batch, c, *inside])
    b.give([batch, *outside, c] if channels_last else [batch, c, *outside])
    return b.build()


@rule
def blocked_pool(b: Builder) -> AxisMap | None:
    """``[N, Cb, image, lanes]``."""
    n, blocks, *spatial, lanes = b.shape()
    batch, c, lane = b.axes((n, blocks, lanes))
    inside, outside = windows(b, pool_window(b.node, tuple(spatial)), b.out()[2:-1])
    b.take(0, [batch, c, *inside, lane])
    b.give([batch, c, *outside, lane])
    return b.build()


__all__ = [
    "blocked_pool", "causal_convolution", "convolution", "deformable_convolution", "pool",
    "transposed_convolution", "windows",
]  # fmt: skip
