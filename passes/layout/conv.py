"""Convolutions on blocked layouts, of floats and of 8-bit integers."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...ir.choices import DIRECT, Choice
from ...ir.dims import Dim, is_static
from ...ir.graph import Attr, Graph, Node, Value
from ...ir.packing import pack_conv_weight, pack_depthwise_weight
from ...ir.registry import attribute
from ...ir.short_sums import sums_are_short
from ...ir.windows import ConvShape, Window, conv_window
from .planner import Planner
from .split import PackedWeights, listed_weights
from .weights import Weights, find_weights


@dataclass(frozen=True)
class Work:
    """A convolution of ``x`` [N, C, *S] by constant weights [M, C/g, *K] and a bias [M] or None.

    It stands for ``node``; ``image`` are the spatial extents of its result, ``key`` tells the
    weights from others. For 8-bit integers ``depth`` is that of the dot product, and the elements
    of the border are ``border``.
    """

    node: Node
    x: Value
    weight: np.ndarray
    bias: np.ndarray | None
    key: tuple[object, ...]
    group: int
    window: Window
    image: tuple[Dim, ...]
    depth: int = 1
    border: int = 0

    @classmethod
    def of(
        cls, node: Node, x: Value, weight: np.ndarray, bias: np.ndarray | None,
        key: tuple[object, ...], depth: int = 1, border: int = 0,
    ) -> Work:  # fmt: skip
        """The work of ``Conv`` and its integer relatives."""
        group = int(attribute(node, "group"))
        window = conv_window(node, x.shape[2:], weight.shape[2:])
        image = node.out().shape[2:]
        return cls(node, x, weight, bias, key, group, window, image, depth, border)

    @property
    def channels(self) -> int:
        return int(self.x.shape[1])

    @property
    def filters(self) -> int:
        return int(self.weight.shape[0])

    @property
    def is_depthwise(self) -> bool:
        return self.group == self.channels == self.filters and self.group > 1


def convolution(p: Planner, node: Node) -> None:
    """``Conv`` of float32 by constant weights, or by weights stored in 8 bits."""
    x, w, *rest = p.graph.inputs_of(node)
    bias = rest[0] if rest else None
    if x is None or w is None or x.dtype != "float32":
        return p.keep(node, "packed kernels take float32")
    weights = find_weights(p.graph, w)
    if weights is None or (bias is not None and bias.constant is None):
        return p.keep(node, "its weights or its bias are not constant")
    scale = filter_scale(weights)
    if scale is None:
        return p.keep(node, "its weights have scales along another axis than the filters")
    start = None if bias is None else bias.constant
    plain = bool(np.all(scale == 1))
    work = Work.of(node, x, weights.array, start if plain else None, weights.key)
    total = convolve(p, work)
    if total is None:
        return
    result = total if plain else scaled(p, work, total, scale, start)
    p.convert(node, result, _kind(p.graph, total.node))


def _kind(graph: Graph, node: Node) -> str:
    """What a blocked convolution counts as."""
    if node.key == "kiln.DepthwiseBlocked":
        return "depthwise"
    if attribute(node, "algorithm") != DIRECT:
        return "winograd"
    weights = graph.input(node, 1)
    assert weights is not None
    # Where all steps are in a list, no columns are left in the main part.
    return "listed" if 0 in weights.shape else "convolutions"


def filter_scale(weights: Weights, axis: int = 0) -> np.ndarray | None:
    """The factor of each filter, or of all; None where the factors are of another kind.

    ``axis`` is that of the filters.
    """
    scale = weights.scale
    if scale.size == 1:
        return scale.reshape(())
    along = scale.shape[axis] == weights.array.shape[axis] == scale.size
    return scale.reshape(-1) if along else None


def scaled(
    p: Planner, work: Work, total: Value, scale: np.ndarray, bias: np.ndarray | None
) -> Value:
    """``total * scale + bias`` by channels."""
    blocks = int(total.shape[1])
    key = (work.key, "scale", scale.tobytes())
    factor = p.constant(key, by_channel(p, scale, blocks, work.x.rank), "scale")
    result = p.add("Mul", [total, factor], domain="", like=work.node)
    if bias is None:
        return result
    row = by_channel(p, bias, blocks, work.x.rank)
    start = p.constant((work.node, "addend"), row, f"{work.node.out().name}_bias")
    return p.add("Add", [result, start], domain="", like=work.node)


def by_channel(p: Planner, values: np.ndarray, blocks: int, rank: int) -> np.ndarray:
    """One value a channel beside blocked images: [blocks, 1, .., block]; single values stay."""
    if values.size == 1:
        return values.reshape(())
    packed = np.zeros((blocks * p.block,), values.dtype)
    packed[: values.size] = values
    return packed.reshape(blocks, *(1,) * (rank - 2), p.block)


def convolve(p: Planner, work: Work) -> Value | None:
    """The blocked result of a convolution (int32 sums of integers); None where it cannot be."""
    attrs = _window_attrs(work)
    if attrs is None:
        p.keep(work.node, "its channels or its pads are open, or it has over three dims of space")
        return None
    attrs.update(in_channels=work.channels, out_channels=work.filters, block=p.block)
    if work.is_depthwise:
        return _depthwise(p, work, attrs)
    return _dense(p, work, attrs)


def _window_attrs(work: Work) -> dict[str, Attr] | None:
    window = work.window
    if not 3 <= work.x.rank <= 5 or not is_static(work.x.shape[1]):
        return None
    if not all(isinstance(d, int) and d >= 0 for d in (*window.begin, *window.end)):
        return None
    return {
        "kernel_shape": window.kernel, "strides": window.strides, "dilations": window.dilations,
        "pads": (*window.begin, *window.end),
    }  # fmt: skip


def _depthwise(p: Planner, work: Work, attrs: dict[str, Attr]) -> Value:
    dense = work.window.dilations[-1] == 1
    depth = p.layouts.depthwise_depth if work.depth > 1 and dense else 1
    if depth > 1:
        attrs["depth"] = depth
    packed = pack_depthwise_weight(work.weight, p.block, depth)
    weight = p.constant((*work.key, "depthwise", depth), packed, f"{work.node.out().name}_weight")
    operands: list[Value | None] = [weight, *_bias(p, work, packed.shape[0])]
    inputs = [p.as_blocked(work.x), *_with_border(p, work, operands, 2)]
    return p.add("DepthwiseBlocked", inputs, attrs, like=work.node)


def _dense(p: Planner, work: Work, attrs: dict[str, Attr]) -> Value | None:
    found = _choice(p, work)
    if found is None:
        return None
    shape, choice = found
    source, in_block = _source(p, work)
    weights, algorithm = _packed(p, work, shape, choice, in_block)
    attrs["group"] = work.group
    if algorithm != DIRECT:
        attrs["algorithm"] = algorithm
    if weights.depth > 1:
        attrs["depth"] = weights.depth
    groups, tiles = weights.array.shape[:2]
    tile = weights.array.shape[-1] // weights.depth
    bias = _bias(p, work, groups * tiles * (tile // p.block))
    operands = weights.operands(p, f"{work.node.out().name}_weight", bias)
    inputs = [source, *_with_border(p, work, operands, 5)]
    return p.add("ConvBlocked", inputs, attrs, like=work.node)


def _packed(
    p: Planner, work: Work, shape: ConvShape, choice: Choice, in_block: int
) -> tuple[PackedWeights, str]:
    """The packed weights and the algorithm."""

    def pack(tile: int, depth: int = work.depth) -> PackedWeights:
        key = (*work.key, "conv", work.group, in_block, tile, depth)
        array = pack_conv_weight(work.weight, work.group, in_block, tile, depth)
        return PackedWeights(key, array, depth)

    listed = listed_weights(p, work.weight, shape, pack)
    if listed is not None:
        return listed, DIRECT
    winograd = choice.algorithm != DIRECT and work.depth > 1
    depth = p.layouts.winograd_depth if winograd else work.depth
    return pack(choice.columns, depth), choice.algorithm


def _with_border(
    p: Planner, work: Work, operands: list[Value | None], count: int
) -> list[Value | None]:
    """The ``count`` operands, some of which may be missing, and the element in the border."""
    if work.border == 0 or not any((*work.window.begin, *work.window.end)):
        return operands
    element = np.array(work.border, work.x.dtype)
    border = p.constant(("border", element.dtype, work.border), element, "border")
    return [*operands, *[None] * (count - len(operands)), border]


def _choice(p: Planner, work: Work) -> tuple[ConvShape, Choice] | None:
    """The shape, and its register tile and algorithm.

    None where groups do not fall on blocks, or most lanes would be empty.
    """
    group = work.group
    channels, filters = work.channels // group, work.filters // group
    if group > 1 and (channels % p.block or filters % p.block):
        p.keep(work.node, f"its groups do not fall on blocks of {p.block} channels")
        return None
    fewest = p.layouts.fewest_filters(work.depth)
    if filters < fewest and not (work.x in p.blocked and _is_pointwise(work)):
        p.keep(work.node, f"its {filters} filters would leave most of a block of {p.block} empty")
        return None
    image = tuple(d if isinstance(d, int) else None for d in work.image)
    w = work.window
    kernel = tuple(int(k) for k in work.weight.shape[2:])
    integer = work.depth > 1
    shape = ConvShape(
        channels, filters, group, kernel, w.strides, w.dilations, image, integer,
        integer and sums_are_short(work.weight),
    )  # fmt: skip
    choice = p.layouts.choose(shape)
    tile = choice.columns
    while group > 1 and filters % tile:
        tile -= p.block
    return shape, replace(choice, columns=tile)


def _is_pointwise(work: Work) -> bool:
    """Does it only mix channels, so that taking blocks apart would cost more than empty lanes?"""
    return all(n == 1 for n in (*work.weight.shape[2:], *work.window.strides))


def _source(p: Planner, work: Work) -> tuple[Value, int]:
    """The input in blocks, and the channels of a block: one step's for few channels."""
    x = work.x
    if work.channels >= p.block or x in p.blocked:
        return p.as_blocked(x), p.block
    if work.depth == 1:
        return p.add("Reshape", [x], {"shape": (*x.shape, 1)}), 1
    return p.add("PackChannels", [x], {"block": work.depth}), work.depth


def _bias(p: Planner, work: Work, blocks: int) -> list[Value]:
    """The bias in blocks, where there is one."""
    if work.bias is None:
        return []
    row = np.broadcast_to(work.bias.reshape(-1), (work.filters,))
    packed = by_channel(p, row, blocks, work.x.rank)
    packed = np.broadcast_to(packed, (blocks, *(1,) * (work.x.rank - 2), p.block))
    return [p.constant((work.node, "bias"), packed, f"{work.node.out().name}_bias")]
