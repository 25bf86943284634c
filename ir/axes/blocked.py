"""Axis maps of convolutions on blocked layouts (see :mod:`..packing`).

Channels are (block, lane). If the last block is not full, the channels are opaque, since its
padding lanes must not be read.
"""

from __future__ import annotations

from ..dims import known_equal
from ..windows import conv_window
from .build import Builder, rule
from .map import Axis, AxisMap, Combine, whole
from .window import windows


def _image(b: Builder, depthwise: bool) -> tuple[list[Axis], list[Axis]]:
    weights = b.shape(1)
    kernel = weights[1:-1] if depthwise else weights[3:-2]
    if int(b.attr("depth")) > 1:  # the last dim of packed weights counts steps
        kernel = tuple(b.attr("kernel_shape"))
    return windows(b, conv_window(b.node, b.shape()[2:-1], kernel), b.out()[2:-1])


@rule
def blocked_convolution(b: Builder) -> AxisMap | None:
    """Data ``[N, (g, Cb), image, c]``, weights ``[g, Mt, Cb, window, c, (tb, lane)]``, bias and
    result ``[N, (g, Mt, tb), image, lane]``."""
    n, blocks, *_, lanes = b.shape()
    groups, tiles, inner, *kernel, depth, tile = b.shape(1)
    block = b.attr("block")
    batch = whole(b.factor(n))
    inside, outside = _image(b, depthwise=False)
    full = (
        known_equal(blocks * lanes, b.attr("in_channels"))
        and known_equal(blocks, groups * inner)
        and known_equal(groups * tiles * tile, b.attr("out_channels"))
        and known_equal(tile % block, 0)
        and int(b.attr("depth")) == 1
    )
    if not full:
        b.take(0, [batch, b.opaque(blocks), *inside, b.opaque(lanes)])
        b.give([batch, b.opaque(b.out()[1]), *outside, b.opaque(block)])
        return b.build(addends=[2])
    g, mt = b.factor(groups), b.factor(tiles)
    cb, c = b.reduced(inner, Combine.SUM), b.reduced(depth, Combine.SUM)
    tb, lane = b.factor(tile // block), b.factor(block)
    filters = whole(g, mt, tb)
    b.take(0, [batch, whole(g, cb), *inside, whole(c)])
    taps = [b.opaque(k) for k in kernel]
    b.take(1, [whole(g), whole(mt), whole(cb), *taps, whole(c), whole(tb, lane)])
    _bias(b, filters, whole(lane))
    b.give([batch, filters, *outside, whole(lane)])
    counts = {
        "group": (g,), "in_channels": (g, cb, c), "out_channels": (g, mt, tb, lane),
        "block": (lane,),
    }  # fmt: skip
    return b.build(addends=[2], counts=counts)


@rule
def blocked_depthwise(b: Builder) -> AxisMap | None:
    """Data and result ``[N, Cb, image, lane]``, weights ``[Cb, window, lane]``."""
    n, blocks, *_, lanes = b.shape()
    batch = whole(b.factor(n))
    inside, outside = _image(b, depthwise=True)
    channels, lane = b.factor(blocks), b.factor(lanes)
    counts = {"block": (lane,), **dict.fromkeys(("in_channels", "out_channels"), (channels, lane))}
    if not known_equal(blocks * lanes, b.attr("in_channels")) or int(b.attr("depth")) > 1:
        b.withdraw(whole(channels, lane))
        counts = {}
    else:
        taps = [b.opaque(k) for k in b.shape(1)[1:-1]]
        b.take(1, [whole(channels), *taps, whole(lane)])
    b.take(0, [batch, whole(channels), *inside, whole(lane)])
    _bias(b, whole(channels), whole(lane))
    b.give([batch, whole(channels), *outside, whole(lane)])
    return b.build(addends=[2], counts=counts)


def _bias(b: Builder, blocks: Axis, lane: Axis) -> None:
    """``[blocks, 1, .., lane]``."""
    if b.has(2):
        ones = len(b.shape(2)) - 2
        shape = [b.out()[1], *(1,) * ones, b.out()[-1]]
        b.broadcast(2, [blocks, *b.axes((1,) * ones), lane], shape)


__all__ = ["blocked_convolution", "blocked_depthwise"]
