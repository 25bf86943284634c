"""Axis maps of reductions, of softmax and its relatives, and of normalizations."""

from __future__ import annotations

from collections.abc import Sequence

from ..dims import Dim
from ..graph import Graph, Node, Value
from ..registry import attribute
from ..shapes import normalize_axes, normalize_axis
from ..types import TensorType
from .build import Builder, Rule, constant_ints, rule
from .map import UNIT, Axis, AxisMap, Combine, Kind, Piece, whole


def reduced(
    b: Builder, axes: Sequence[int], keepdims: bool, combine: Combine | None = None
) -> AxisMap:
    """Operand 0 with ``axes`` reduced; ``combine`` says how results over parts are combined."""
    taken: list[Axis] = []
    given: list[Axis] = []
    for a, d in enumerate(b.shape()):
        if a in axes:
            taken.append(whole(b.reduced(d, combine)))
            given += [UNIT] if keepdims else []
        else:
            taken.append(whole(b.factor(d)))
            given.append(taken[-1])
    b.take(0, taken)
    b.give(given)
    return b.build()


class Reduction:
    """The rule of a ``Reduce*``: the axes of operand 1, if they are known.

    ``combine`` says how results over parts are combined. Roots and logarithms of sums have none.
    """

    def __init__(self, combine: Combine | None = None) -> None:
        self._combine = combine
        self._describe = rule(self._map)

    def __call__(self, graph: Graph, node: Node) -> AxisMap | None:
        return self._describe(graph, node)

    def reduced_axes(self, graph: Graph, node: Node) -> tuple[int, ...] | None:
        """The axes that the map has as reduced, ascending, at a fraction of its cost."""
        x, axes = graph.input(node, 0), graph.input(node, 1)
        t = None if x is None else x.type
        if not isinstance(t, TensorType) or t.shape is None:
            return None
        at = _listed_axes(node, axes, len(t.shape))
        return None if at is None else tuple(sorted(at))

    def _map(self, b: Builder) -> AxisMap | None:
        at = _listed_axes(b.node, b.inputs[1] if b.has(1) else None, len(b.shape()))
        if at is None:
            return None
        return reduced(b, at, bool(b.attr("keepdims")), self._combine)


def _listed_axes(node: Node, axes: Value | None, rank: int) -> tuple[int, ...] | None:
    listed: Sequence[int] | None = () if axes is None else constant_ints(axes)
    if listed is None:
        return None
    if not listed:
        listed = () if attribute(node, "noop_with_empty_axes") else range(rank)
    return normalize_axes(listed, rank)


@rule
def arg_reduction(b: Builder) -> AxisMap | None:
    """``ArgMax`` and ``ArgMin``: indices into an axis, whose order therefore counts."""
    at = normalize_axis(b.attr("axis"), len(b.shape()))
    axes = b.axes(b.shape())
    b.withdraw(axes[at])
    b.take(0, axes)
    b.give([*axes[:at], *([UNIT] if b.attr("keepdims") else []), *axes[at + 1 :]])
    return b.build()


def global_pool(combine: Combine | None = None) -> Rule:
    """The rule of a pool of whole images: ``[N, C, image]``, or channels last."""

    @rule
    def describe(b: Builder) -> AxisMap | None:
        rank = len(b.shape())
        axes = range(1, rank - 1) if b.attr("channels_last") else range(2, rank)
        return reduced(b, axes, True, combine)

    return describe


@rule
def along_axis(b: Builder) -> AxisMap | None:
    """``TopK``, ``CumSum``, ``Hardmax``: the order along one axis counts; lines are independent.

    The axis is an attribute, or operand 1.
    """
    rank = len(b.shape())
    axis = b.attr("axis")
    if axis is None:
        known = b.ints(1)
        if not known:
            return None
        axis = known[0]
    at = normalize_axis(axis, rank)
    axes = b.axes(b.shape())
    axes[at] = b.opaque(b.shape()[at])
    b.take(0, axes)
    for k in range(len(b.node.outputs)):
        b.give([*axes[:at], b.opaque(b.out(k)[at]), *axes[at + 1 :]], k)
    return b.build()


# ---- over axes that stay -------------------------------------------------------------------------


def normalized(b: Builder, axes: Sequence[int], shape: Sequence[Dim] | None = None) -> list[Axis]:
    """The axes of operand 0, those of ``axes`` normalized."""
    shape = b.shape() if shape is None else shape
    return [
        whole(b.factor(d, Kind.NORMALIZED if a in axes else Kind.MAPPED))
        for a, d in enumerate(shape)
    ]


@rule
def softmax(b: Builder) -> AxisMap | None:
    """One axis; of ``QLinearSoftmax`` before opset 13 all from that axis on."""
    rank = len(b.shape())
    first = normalize_axis(b.attr("axis"), rank)
    flat = b.attr("opset") is not None and b.attr("opset") < 13
    axes = normalized(b, range(first, rank) if flat else [first])
    b.take(0, axes)
    b.give(axes)
    return b.build()


@rule
def mean_variance(b: Builder) -> AxisMap | None:
    """The axes of the attribute."""
    axes = normalized(b, normalize_axes(b.attr("axes"), len(b.shape())))
    b.take(0, axes)
    b.give(axes)
    return b.build()


@rule
def local_response(b: Builder) -> AxisMap | None:
    """``LRN``: each channel is normalized by neighbouring ones."""
    size = int(b.attr("size"))
    batch, channels, *image = b.shape()
    n, *rest = b.axes((batch, *image))
    c = b.factor(channels, Kind.WINDOWED)
    b.take(0, [n, (Piece((c,), -((size - 1) // 2), 1, size),), *rest])
    b.give([n, whole(c), *rest])
    return b.build()


@rule
def instance_norm(b: Builder) -> AxisMap | None:
    """Every channel of every image; scale and bias are by channel."""
    axes = normalized(b, range(2, len(b.shape())))
    b.take(0, axes)
    for i in (1, 2):
        b.take(i, [axes[1]])
    b.give(axes)
    return b.build()


@rule
def group_norm(b: Builder) -> AxisMap | None:
    """Channels are (group, channel of the group); a group and the image are normalized."""
    batch, channels, *image = b.shape()
    groups = int(b.attr("num_groups"))
    g, c = b.factor(groups), b.factor(channels // groups, Kind.NORMALIZED)
    axes = [whole(b.factor(batch)), whole(g, c)]
    axes += [whole(b.factor(d, Kind.NORMALIZED)) for d in image]
    b.take(0, axes)
    for i in (1, 2):
        b.take(i, [whole(g, c)])
    b.give(axes)
    return b.build(counts={"num_groups": (g,)})


@rule
def batch_norm(b: Builder) -> AxisMap | None:
    """By channel; in training the statistics are over batch and image."""
    rank = len(b.shape())
    over = [a for a in range(rank) if a != 1] if b.attr("training_mode") else []
    axes = normalized(b, over)
    b.take(0, axes)
    b.give(axes)
    if rank > 1:
        for i in range(1, 5):
            b.take(i, [axes[1]])
        for k in (1, 2):
            b.give([axes[1]], k)
    return b.build()


@rule
def layer_norm(b: Builder) -> AxisMap | None:
    """The axes from ``axis`` on; scale and bias broadcast; statistics keep dims of 1."""
    rank = len(b.shape())
    first = normalize_axis(b.attr("axis"), rank)
    axes = normalized(b, range(first, rank))
    b.take(0, axes)
    for i in range(1, len(b.inputs)):
        b.broadcast(i, axes, b.shape())
    b.give(axes)
    for k in range(1, len(b.node.outputs)):
        b.give([*axes[:first], *[UNIT] * (rank - first)], k)
    return b.build()


@rule
def skip_layer_norm(b: Builder) -> AxisMap | None:
    """The last axis of a sum; gamma, beta and bias are along it; the sum is also a result."""
    axes = normalized(b, [len(b.shape()) - 1])
    b.take(0, axes)
    for i in range(1, len(b.inputs)):
        b.broadcast(i, axes, b.shape())
    for k in (0, 3):
        b.give(axes, k)
    for k in (1, 2):
        b.give([*axes[:-1], UNIT], k)
    return b.build()


@rule
def embed_layer_norm(b: Builder) -> AxisMap | None:
    """Ids ``[batch, length]`` pick rows of tables; without position ids the position counts.

    The second result is the number of unmasked ids of each row.
    """
    batch, length = b.shape()
    counted = len(b.node.outputs) > 1 and b.has(7)
    n = whole(b.factor(batch))
    s = whole(b.factor(length, Kind.NORMALIZED if counted else Kind.MAPPED))
    w = whole(b.factor(b.out()[2], Kind.NORMALIZED))
    if not b.has(8):
        b.withdraw(s)
    for i in (0, 1, 7, 8):
        b.take(i, [n, s])
    for i in (2, 3, 4):
        b.take(i, [b.opaque(b.shape(i)[0]), w] if b.has(i) else [])
    for i in (5, 6):
        b.take(i, [w])
    b.give([n, s, w])
    b.give([n], 1)
    b.give([n, s, w], 2)
    return b.build()


__all__ = [
    "along_axis", "arg_reduction", "batch_norm", "embed_layer_norm", "global_pool", "group_norm",
    "instance_norm", "layer_norm", "local_response", "mean_variance", "reduced",
    "skip_layer_norm", "softmax",
]  # fmt: skip
