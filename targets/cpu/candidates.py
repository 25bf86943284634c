"""Candidates for tuning: the tiles and algorithms for a convolution or product."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ...ir.choices import DIRECT, Choice, KernelShape, ProductShape
from ...ir.graph import Attr, Graph, Value
from ...ir.infer import infer_types
from ...ir.types import TensorType, dtype
from ...ir.windows import ConvShape
from .dot import WordDot, activation_type, integer_depth, rank_packed_tiles
from .features import CpuFeatures
from .positions import rank_conv_tiles
from .tiling import Tile
from .winograd_choice import rank_winograd_tiles, winograd_form, winograd_forms
from .winograd_forms import Form


def possible_choices(cpu: CpuFeatures, shape: KernelShape) -> list[list[Choice]]:
    """All choices for a shape, in a list for each algorithm, the best estimate first.

    The algorithm that the cost model prefers is the first. Empty for a shape with extents that are
    not known.
    """
    if isinstance(shape, ProductShape):
        tiles = rank_packed_tiles(cpu, shape)
        return [_choices(cpu, tiles)] if shape.rows else []
    if any(d is None for d in shape.image):
        return []
    direct = [
        c for c in _choices(cpu, rank_conv_tiles(cpu, shape))
        if shape.group == 1 or shape.filters % c.columns == 0
    ]  # fmt: skip
    forms = winograd_forms(cpu, shape).values()
    found = [direct] + [_by_points(cpu, shape, form) for form in forms]
    best = winograd_form(cpu, shape)
    own = DIRECT if best is None else best.name
    return sorted(found, key=lambda choices: choices[0].algorithm != own)


def _by_points(cpu: CpuFeatures, shape: ConvShape, form: Form) -> list[Choice]:
    tiles = rank_winograd_tiles(cpu, shape, form)
    return [replace(c, algorithm=form.name) for c in _choices(cpu, tiles)]


def best_choices(cpu: CpuFeatures, shape: KernelShape, count: int) -> list[Choice]:
    """The ``count`` best choices of each algorithm by estimate; the cost model's is the first."""
    return [c for choices in possible_choices(cpu, shape) for c in choices[:count]]


def _choices(cpu: CpuFeatures, tiles: Sequence[Tile]) -> list[Choice]:
    return [Choice(t.vectors * cpu.lanes) for t in tiles]


def kernel_graph(cpu: CpuFeatures, shape: KernelShape, choice: Choice) -> Graph:
    """A graph of one node to time: a batch of one, with packed weights (and a bias) as inputs.

    ``shape`` must have no unknown rows or extents.
    """
    graph = Graph("kernel")
    if isinstance(shape, ProductShape):
        y = _product(graph, cpu, shape, choice)
    else:
        y = _conv(graph, cpu, shape, choice)
    graph.set_outputs([y], ["y"])
    infer_types(graph)
    return graph


def _ceil_div(size: int, part: int) -> int:
    return -(-size // part)


def _input(graph: Graph, kind: str, shape: tuple[int, ...]) -> Value:
    return graph.add_input("in", TensorType(dtype(kind), shape))


def _product(graph: Graph, cpu: CpuFeatures, shape: ProductShape, choice: Choice) -> Value:
    """A ``kiln.MatMulPacked`` of the shape, for this choice."""
    depth = integer_depth(cpu) if shape.operand != "float32" else 1
    tiles, steps = _ceil_div(shape.columns, choice.columns), _ceil_div(shape.inner, depth)
    assert shape.rows is not None
    x = _input(graph, shape.operand, (shape.rows, shape.inner))
    w = _input(graph, shape.weight, (tiles, steps, choice.columns * depth))
    attrs: dict[str, Attr] = {"columns": shape.columns, "depth": depth}
    return graph.add_node("MatMulPacked", [x, w], attrs, domain="kiln").out()


def _depth(cpu: CpuFeatures, shape: ConvShape, choice: Choice) -> int:
    """How many neighbouring channels the packed weights of a convolution have together."""
    if not shape.integer:
        return 1
    return integer_depth(cpu) if choice.algorithm == DIRECT else WordDot.depth


def _conv(graph: Graph, cpu: CpuFeatures, shape: ConvShape, choice: Choice) -> Value:
    """A ``kiln.ConvBlocked`` of the shape, for this choice; pads keep the size for stride 1."""
    block, tile, group = cpu.lanes, choice.columns, shape.group
    depth = _depth(cpu, shape, choice)
    channels = shape.channels * group
    in_block = block if channels >= block else depth
    reach = [(k - 1) * d for k, d in zip(shape.kernel, shape.dilations, strict=True)]
    image = [(d or 1) - 1 for d in shape.image]
    extents = [d * s + 1 for d, s in zip(image, shape.strides, strict=True)]
    kind = activation_type(cpu) or "uint8" if shape.integer else "float32"
    x = _input(graph, kind, (1, _ceil_div(channels, in_block), *extents, in_block))
    tiles, blocks = _ceil_div(shape.filters, tile), _ceil_div(shape.channels, in_block)
    packed = (group, tiles, blocks, *shape.kernel, in_block // depth, tile * depth)
    w = _input(graph, "int8" if shape.integer else "float32", packed)
    rows = (group * tiles * (tile // block), *(1,) * len(extents), block)
    bias = _input(graph, "int32" if shape.integer else "float32", rows)
    attrs: dict[str, Attr] = {
        "kernel_shape": shape.kernel, "strides": shape.strides, "dilations": shape.dilations,
        "pads": (*(r // 2 for r in reach), *(r - r // 2 for r in reach)), "group": group,
        "in_channels": channels, "out_channels": shape.filters * group, "block": block,
        "depth": depth, "algorithm": choice.algorithm,
    }  # fmt: skip
    return graph.add_node("ConvBlocked", [x, w, bias], attrs, domain="kiln").out()
