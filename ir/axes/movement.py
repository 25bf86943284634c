"""Axis maps of ops that move elements: transposes, joins, cuts, borders, repeats, blocks."""

from __future__ import annotations

from collections.abc import Sequence

from ..dims import Dim, is_static, known_equal
from ..shapes import normalize_axes, normalize_axis
from ..slices import slice_range
from .build import Builder, rule
from .map import Axis, AxisMap, Kind, Piece, whole


@rule
def transpose(b: Builder) -> AxisMap | None:
    """Axis ``perm[i]`` becomes axis ``i``."""
    axes = b.axes(b.shape())
    perm = b.attr("perm")
    order = range(len(axes) - 1, -1, -1) if perm is None else normalize_axes(perm, len(axes))
    b.take(0, axes)
    b.give([axes[i] for i in order])
    return b.build()


@rule
def expand(b: Builder) -> AxisMap | None:
    """Sizes of 1 are repeated: factors that only the result has."""
    axes = b.axes(b.out())
    b.broadcast(0, axes, b.out())
    b.give(axes)
    return b.build()


@rule
def tile(b: Builder) -> AxisMap | None:
    """The result's axes are (repeat, index)."""
    taken, given = [], []
    for d, total in zip(b.shape(), b.out(), strict=True):
        f = b.factor(d)
        times = total // d if is_static(d) and is_static(total) and d != 0 else None
        taken.append(whole(f))
        if times is None and not known_equal(d, total):
            b.withdraw(taken[-1])
            given.append(b.opaque(total))
        else:
            given.append(
                whole(f) if times in (None, 1) else whole(b.factor(times or 1, fixed=True), f)
            )
    b.take(0, taken)
    b.give(given)
    return b.build()


# ---- joins and parts -----------------------------------------------------------------------------


def joined(b: Builder, operands: Sequence[int], at: int) -> AxisMap:
    """``operands`` one after the other along axis ``at``."""
    axes = b.axes(b.out())
    pieces: list[Piece] = []
    start: Dim = 0
    for i in operands:
        size = b.shape(i)[at]
        part = whole(b.factor(size))
        pieces.append(Piece(part[0].factors, start))
        b.take(i, [*axes[:at], part, *axes[at + 1 :]])
        start = start + size
    b.give([*axes[:at], tuple(pieces), *axes[at + 1 :]])
    return b.build()


@rule
def concat(b: Builder) -> AxisMap | None:
    """The operands are pieces of the result's axis."""
    return joined(b, range(len(b.inputs)), normalize_axis(b.attr("axis"), len(b.out())))


@rule
def quantized_concat(b: Builder) -> AxisMap | None:
    """``QLinearConcat``: every third operand from number 2 on; the others are their parameters."""
    return joined(b, range(2, len(b.inputs), 3), normalize_axis(b.attr("axis"), len(b.out())))


@rule
def split(b: Builder) -> AxisMap | None:
    """The results are pieces of the operand's axis."""
    axes = b.axes(b.shape())
    at = normalize_axis(b.attr("axis"), len(axes))
    pieces: list[Piece] = []
    start: Dim = 0
    for k in range(len(b.node.outputs)):
        part = whole(b.factor(b.out(k)[at]))
        pieces.append(Piece(part[0].factors, start))
        b.give([*axes[:at], part, *axes[at + 1 :]], k)
        start = start + b.out(k)[at]
    b.take(0, [*axes[:at], tuple(pieces), *axes[at + 1 :]])
    return b.build()


# ---- cuts and borders ----------------------------------------------------------------------------


@rule
def slice_(b: Builder) -> AxisMap | None:
    """Index ``i`` of a sliced axis is read at ``start + i*step``."""
    starts, ends, axes = (b.ints(i) for i in (1, 2, 3))
    steps = b.ints(4) if b.has(4) else [1] * len(starts or ())
    if b.has(3) and axes is None:
        return None
    sliced = normalize_axes(axes or range(len(starts or b.shape())), len(b.shape()))
    taken = b.axes(b.shape())
    given = list(taken)
    for k, a in enumerate(sliced):
        size, found = b.shape()[a], None
        if starts is not None and ends is not None and steps is not None:
            found = slice_range(starts[k], ends[k], steps[k], size)
        if found is None or steps is None:
            taken[a], given[a] = b.opaque(size), b.opaque(b.out()[a])
        else:
            f = b.factor(b.out()[a])
            taken[a], given[a] = (Piece((f,), found[0], steps[k]),), whole(f)
    b.take(0, taken)
    b.give(given)
    return b.build()


@rule
def kiln_slice(b: Builder) -> AxisMap | None:
    """Index ``i`` of every axis is read at ``starts + i*steps``."""
    axes = b.axes(b.out())
    starts, steps = b.attr("starts"), b.attr("steps")
    b.take(0, [
        (Piece(axis[0].factors, start, step),)
        for axis, start, step in zip(axes, starts, steps, strict=True)
    ])  # fmt: skip
    b.give(axes)
    return b.build()


@rule
def pad(b: Builder) -> AxisMap | None:
    """The operand is a piece of the result; an axis with borders that copy elements is opaque."""
    rank = len(b.shape())
    pads, axes = b.ints(1), b.ints(3)
    if pads is None or b.has(3) and axes is None:
        return None
    padded = normalize_axes(axes, rank) if axes is not None else tuple(range(rank))
    taken = b.axes(b.shape())
    given = list(taken)
    for k, a in enumerate(padded):
        before, after = pads[k], pads[k + len(padded)]
        if (before, after) == (0, 0):
            continue
        if b.attr("mode") != "constant":
            b.withdraw(taken[a])
            given[a] = b.opaque(b.out()[a])
            continue
        cut = max(-before, 0)
        f = b.factor(b.shape()[a] - cut - max(-after, 0))
        taken[a], given[a] = (Piece((f,), cut),), (Piece((f,), max(before, 0)),)
    b.take(0, taken)
    b.give(given)
    return b.build()


@rule
def center_crop_pad(b: Builder) -> AxisMap | None:
    """The middle of each axis is a piece of the longer one, operand or result."""
    rank = len(b.shape())
    given_axes = b.attr("axes")
    axes = tuple(range(rank)) if given_axes is None else normalize_axes(given_axes, rank)
    taken = b.axes(b.shape())
    given = list(taken)
    for a in axes:
        have, want = b.shape()[a], b.out()[a]
        if not isinstance(have, int) or not isinstance(want, int):
            taken[a], given[a] = b.opaque(have), b.opaque(want)
            continue
        f = b.factor(min(have, want))
        taken[a] = (Piece((f,), max(have - want, 0) // 2),)
        given[a] = (Piece((f,), max(want - have, 0) // 2),)
    b.take(0, taken)
    b.give(given)
    return b.build()


# ---- by position ---------------------------------------------------------------------------------


@rule
def reverse_sequence(b: Builder) -> AxisMap | None:
    """Sequences are independent; along the time axis the position counts."""
    axes = b.axes(b.shape())
    b.withdraw(axes[b.attr("time_axis")])
    b.take(0, axes)
    b.take(1, [axes[b.attr("batch_axis")]])
    b.give(axes)
    return b.build()


@rule
def triangle(b: Builder) -> AxisMap | None:
    """``Trilu``: matrices, of which one side of a diagonal is kept."""
    axes = b.axes(b.shape())
    for axis in axes[-2:]:
        b.withdraw(axis)
    b.take(0, axes)
    b.give(axes)
    return b.build()


# ---- blocks --------------------------------------------------------------------------------------


@rule
def depth_to_space(b: Builder) -> AxisMap | None:
    """Channels (row, column, channel), or (channel, row, column): parts of the image's axes."""
    size = int(b.attr("blocksize"))
    return _spread_depth(b, size, size, last=b.attr("mode") == "CRD")


@rule
def space_to_depth(b: Builder) -> AxisMap | None:
    """The image's axes are (block, place); channels become (row, column, channel)."""
    size = int(b.attr("blocksize"))
    n, c, h, w = b.shape()
    batch, channel = b.factor(n), b.factor(c)
    rows, columns = b.factor(h // size), b.factor(w // size)
    i, j = b.factor(size, fixed=True), b.factor(size, fixed=True)
    b.take(0, [whole(batch), whole(channel), whole(rows, i), whole(columns, j)])
    b.give([whole(batch), whole(i, j, channel), whole(rows), whole(columns)])
    return b.build()


@rule
def depth_to_space_blocked(b: Builder) -> AxisMap | None:
    """``[N, (kh, kw, Cb), H, W, block]`` to ``[N, Cb, (H, kh), (W, kw), block]``."""
    kh, kw = b.attr("window")
    return _spread_depth(b, int(kh), int(kw), last=False)


def _spread_depth(b: Builder, kh: int, kw: int, last: bool) -> AxisMap:
    n, c, h, w, *block = b.shape()
    batch, channel = b.factor(n), b.factor(c // (kh * kw))
    rows, columns = b.factor(h), b.factor(w)
    i, j = b.factor(kh, fixed=True), b.factor(kw, fixed=True)
    depth: Axis = whole(channel, i, j) if last else whole(i, j, channel)
    lanes = b.axes(block)
    b.take(0, [whole(batch), depth, whole(rows), whole(columns), *lanes])
    b.give([whole(batch), whole(channel), whole(rows, i), whole(columns, j), *lanes])
    return b.build()


@rule
def columns_to_image(b: Builder) -> AxisMap | None:
    """``Col2Im``: ``[N, (C, places of the block), columns]`` to ``[N, C, image]``."""
    n, _, columns = b.shape()
    batch, channel = b.factor(n), b.factor(b.out()[1])
    block = b.ints(2)
    if block is None:
        return None
    places = 1
    for d in block:
        places *= d
    depth = whole(channel, b.factor(places, Kind.OPAQUE))
    b.take(0, [whole(batch), depth, b.opaque(columns)])
    b.give([whole(batch), whole(channel), *(b.opaque(d) for d in b.out()[2:])])
    return b.build()


def channel_blocks(b: Builder, channels: Dim, block: Dim) -> tuple[Axis, Axis, Axis]:
    """Channels in blocks: the plain axis, that of blocks and that of lanes; opaque where the last
    block is not full."""
    blocks = -(-channels // block)
    if not known_equal(channels % block, 0):
        return b.opaque(channels), b.opaque(blocks), b.opaque(block)
    outer, lane = b.factor(blocks), b.factor(block)
    return whole(outer, lane), whole(outer), whole(lane)


@rule
def blocked_channels(b: Builder) -> AxisMap | None:
    """``[N, (Cb, block), S]`` to ``[N, Cb, S, block]``."""
    n, channels, *spatial = b.shape()
    plain, blocks, lanes = channel_blocks(b, channels, b.attr("block"))
    batch, *image = b.axes((n, *spatial))
    b.take(0, [batch, plain, *image])
    b.give([batch, blocks, *image, lanes])
    return b.build(counts={"block": _factors(lanes)})


@rule
def plain_channels(b: Builder) -> AxisMap | None:
    """``[N, Cb, S, block]`` to ``[N, (Cb, block), S]``."""
    n, _, *spatial, block = b.shape()
    plain, blocks, lanes = channel_blocks(b, b.attr("channels"), block)
    batch, *image = b.axes((n, *spatial))
    b.take(0, [batch, blocks, *image, lanes])
    b.give([batch, plain, *image])
    return b.build(counts={"channels": _factors(plain)})


def _factors(axis: Axis) -> tuple[int, ...]:
    return axis[0].factors


@rule
def select_channels(b: Builder) -> AxisMap | None:
    """Channels are picked across blocks; batch and image are mapped."""
    n, _, *spatial, block = b.shape()
    batch, *image = b.axes((n, *spatial))
    for i in range(len(b.inputs)):
        b.take(i, [batch, b.opaque(b.shape(i)[1]), *image, b.opaque(block)])
    b.give([batch, b.opaque(b.out()[1]), *image, b.opaque(block)])
    return b.build()


__all__ = [
    "blocked_channels", "center_crop_pad", "columns_to_image", "concat", "depth_to_space",
    "depth_to_space_blocked", "expand", "kiln_slice", "pad", "plain_channels", "quantized_concat",
    "reverse_sequence", "select_channels", "slice_", "space_to_depth", "split", "tile",
    "transpose", "triangle",
]  # fmt: skip
