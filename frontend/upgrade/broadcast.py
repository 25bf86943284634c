"""Ops that had an explicit ``broadcast`` and ``axis`` before opset 7."""

from __future__ import annotations

from ..emit import Emit
from ..errors import ImportFault
from ..node import OnnxNode
from . import upgrade

_BINARY = (
    "Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less",
)  # fmt: skip


@upgrade(*_BINARY, until=6)
def align_at_axis(node: OnnxNode, emit: Emit) -> None:
    """``B`` was aligned with ``A`` from ``axis`` on; today shapes are aligned at their ends."""
    broadcast, axis = node.attrs.pop("broadcast", 0), node.attrs.pop("axis", None)
    if not broadcast or axis is None:
        return
    a, b = node.required(0), node.required(1)
    rank_a, rank_b = emit.rank(a), emit.rank(b)
    assert isinstance(axis, int)
    trailing = rank_a - rank_b - (axis + rank_a if axis < 0 else axis)
    if trailing < 0:
        raise ImportFault(f"axis {axis} does not fit ranks {rank_a} and {rank_b}")
    if trailing and rank_b:
        axes = emit.ints(range(rank_b, rank_b + trailing), "axes")
        node.inputs[1] = emit("Unsqueeze", b, axes)


@upgrade("Max", "Mean", "Min", "Sum", until=7)
def equal_shapes(node: OnnxNode, emit: Emit) -> None:
    """Before these ops broadcast, all inputs had to have the same shape."""
    first, *others = (node.required(i) for i in range(len(node.inputs)))
    for other in others:
        emit.require_same_shape(first, other, "inputs of one shape, as before opset 8")


@upgrade("Gemm", until=6)
def drop_gemm_broadcast(node: OnnxNode, emit: Emit) -> None:
    """``C`` is broadcast by shape alone; equal shapes are the case of ``broadcast=0``."""
    node.attrs.pop("broadcast", None)


@upgrade("PRelu", until=6)
def align_slope(node: OnnxNode, emit: Emit) -> None:
    """A slope of shape [C] was for axis 1; today it would be for the last axis."""
    x, slope = node.required(0), node.required(1)
    dims = emit.dims(slope)
    if len(dims) == 1 and dims[0] != 1 and emit.rank(x) > 2:
        axes = emit.ints(range(1, emit.rank(x) - 1), "axes")
        node.inputs[1] = emit("Unsqueeze", slope, axes)


@upgrade("Tile", until=5)
def tile_all_axes(node: OnnxNode, emit: Emit) -> None:
    """``tiles`` copies along one ``axis`` become a list of repeats, one for each axis."""
    x, tiles, axis = (node.required(i) for i in range(3))
    positions = emit.ints(range(emit.rank(x)), "positions")
    here = emit("Equal", positions, emit("Cast", axis, to=7))
    counts = emit("Where", here, emit("Cast", tiles, to=7), emit.ints([1]))
    node.inputs = [x, counts]
