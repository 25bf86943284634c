"""Axis maps of gathers and scatters, of sampling at positions given by data, and of transforms.

The axis that is indexed is opaque; the axes of the indices are axes of the result.
"""

from __future__ import annotations

from ..dims import known_equal
from ..shapes import normalize_axis
from .build import Builder, rule
from .map import Axis, AxisMap, Kind, Piece, whole


@rule
def gather(b: Builder) -> AxisMap | None:
    """``[lead, picked, rest]`` and indices: ``[lead, indices, rest]``."""
    at = normalize_axis(b.attr("axis"), len(b.shape()))
    axes, indices = b.axes(b.shape()), b.axes(b.shape(1))
    b.withdraw(axes[at])
    b.take(0, axes)
    b.take(1, indices)
    b.give([*axes[:at], *indices, *axes[at + 1 :]])
    return b.build()


@rule
def gather_elements(b: Builder) -> AxisMap | None:
    """Other axes are shared with the indices, which may be shorter than the data."""
    at = normalize_axis(b.attr("axis"), len(b.shape()))
    axes = b.axes(b.shape(1))
    b.take(0, [*axes[:at], b.opaque(b.shape()[at]), *axes[at + 1 :]])
    b.take(1, axes)
    b.give(axes)
    return b.build()


@rule
def gather_nd(b: Builder) -> AxisMap | None:
    """``[batch, picked, rest]`` at ``[batch, places, tuple]``: ``[batch, places, rest]``."""
    batch, depth = int(b.attr("batch_dims") or 0), b.shape(1)[-1]
    if not isinstance(depth, int):
        return None
    indices, rest = b.axes(b.shape(1)[:-1]), b.axes(b.shape()[batch + depth :])
    picked = [b.opaque(d) for d in b.shape()[batch : batch + depth]]
    b.take(0, [*indices[:batch], *picked, *rest])
    b.take(1, [*indices, b.opaque(depth)])
    b.give([*indices, *rest])
    return b.build()


@rule
def pick_features(b: Builder) -> AxisMap | None:
    """``ArrayFeatureExtractor``: elements of the last axis."""
    lead = b.axes(b.out()[:-1])
    picked = b.factor(b.out()[-1])
    if len(b.shape()) > 1:
        b.take(0, [*lead, b.opaque(b.shape()[-1])])
    if known_equal(b.shape(1)[-1] if b.shape(1) else 1, b.out()[-1]) and len(b.shape(1)) == 1:
        b.take(1, [whole(picked)])
    else:
        b.withdraw(whole(picked))
    b.give([*lead, whole(picked)])
    return b.build()


@rule
def scatter_elements(b: Builder) -> AxisMap | None:
    """Other axes are shared; updates may be shorter than the data, so there are two pieces."""
    at = normalize_axis(b.attr("axis"), len(b.shape()))
    data: list[Axis] = []
    updates: list[Axis] = []
    for a, (d, count) in enumerate(zip(b.shape(), b.shape(1), strict=True)):
        if a == at:
            data.append(b.opaque(d))
            updates.append(b.opaque(count))
            continue
        first = b.factor(count)
        updates.append(whole(first))
        rest = () if known_equal(d, count) else (Piece((b.factor(d - count),), count),)
        data.append((Piece((first,)), *rest))
    b.take(0, data)
    b.take(1, updates)
    b.take(2, updates)
    b.give(data)
    return b.build()


@rule
def scatter_nd(b: Builder) -> AxisMap | None:
    """``[written, rest]`` at ``[places, tuple]`` with updates ``[places, rest]``."""
    depth = b.shape(1)[-1]
    if not isinstance(depth, int):
        return None
    rest = b.axes(b.shape()[depth:])
    written = [b.opaque(d) for d in b.shape()[:depth]]
    b.take(0, [*written, *rest])
    b.take(2, [*(b.opaque(d) for d in b.shape(1)[:-1]), *rest])
    b.give([*written, *rest])
    return b.build()


@rule
def tensor_scatter(b: Builder) -> AxisMap | None:
    """Updates are written into a cache along one axis, at an index for each entry of the batch."""
    at = normalize_axis(b.attr("axis"), len(b.shape()))
    axes = b.axes(b.shape())
    b.withdraw(axes[at])
    b.take(0, axes)
    b.take(1, [*axes[:at], b.opaque(b.shape(1)[at]), *axes[at + 1 :]])
    b.take(2, [axes[0]])
    b.give(axes)
    return b.build()


@rule
def one_hot(b: Builder) -> AxisMap | None:
    """A new axis beside those of the indices."""
    at = normalize_axis(b.attr("axis"), len(b.shape()) + 1)
    axes = b.axes(b.shape())
    b.take(0, axes)
    b.give([*axes[:at], b.opaque(b.out()[at]), *axes[at:]])
    return b.build()


@rule
def compress(b: Builder) -> AxisMap | None:
    """The axes other than the one that elements are picked along."""
    if b.attr("axis") is None:
        return None
    at = normalize_axis(b.attr("axis"), len(b.shape()))
    axes = b.axes(b.shape())
    b.withdraw(axes[at])
    b.take(0, axes)
    b.give([*axes[:at], b.opaque(b.out()[at]), *axes[at + 1 :]])
    return b.build()


# ---- images --------------------------------------------------------------------------------------


@rule
def grid_sample(b: Builder) -> AxisMap | None:
    """Every position of the grid ``[N, positions, coordinates]`` samples ``[N, C, image]``."""
    n, channels, *image = b.shape()
    batch, c = b.axes((n, channels))
    places = b.axes(b.out()[2:])
    b.take(0, [batch, c, *(b.opaque(d) for d in image)])
    b.take(1, [batch, *places, b.opaque(b.shape(1)[-1])])
    b.give([batch, c, *places])
    return b.build()


@rule
def affine_grid(b: Builder) -> AxisMap | None:
    """A grid for each matrix of the batch."""
    (n,) = b.axes(b.shape()[:1])
    b.take(0, [n, *(b.opaque(d) for d in b.shape()[1:])])
    b.give([n, *(b.opaque(d) for d in b.out()[1:])])
    return b.build()


@rule
def regions(b: Builder) -> AxisMap | None:
    """``RoiAlign`` and ``MaxRoiPool``: a result for each region; channels are independent."""
    n, channels, *image = b.shape()
    region, c = b.axes((b.shape(1)[0], channels))
    b.take(0, [b.opaque(n), c, *(b.opaque(d) for d in image)])
    b.take(1, [region, b.opaque(b.shape(1)[1])])
    b.take(2, [region])
    b.give([region, c, *(b.opaque(d) for d in b.out()[2:])])
    return b.build()


# ---- Fourier -------------------------------------------------------------------------------------


@rule
def dft(b: Builder) -> AxisMap | None:
    """Mapped are all axes but the transformed one and that of real and imaginary parts."""
    known = b.ints(2) if b.has(2) else [len(b.shape()) - 2]
    if not known:
        return None
    at = normalize_axis(known[0], len(b.shape()))
    axes = b.axes(b.shape())
    result = list(axes)
    for a in (at, len(axes) - 1):
        axes[a], result[a] = b.opaque(b.shape()[a]), b.opaque(b.out()[a])
    b.take(0, axes)
    b.give(result)
    return b.build()


@rule
def stft(b: Builder) -> AxisMap | None:
    """The batch."""
    n = whole(b.factor(b.shape()[0], Kind.MAPPED))
    b.take(0, [n, *(b.opaque(d) for d in b.shape()[1:])])
    b.give([n, *(b.opaque(d) for d in b.out()[1:])])
    return b.build()


__all__ = [
    "affine_grid", "compress", "dft", "gather", "gather_elements", "gather_nd", "grid_sample",
    "one_hot", "pick_features", "regions", "scatter_elements", "scatter_nd", "stft",
    "tensor_scatter",
]  # fmt: skip
