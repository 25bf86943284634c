"""Ops whose attributes became inputs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir.registry import OPSET
from ..emit import Emit
from ..errors import ImportFault
from ..node import OnnxNode
from . import upgrade

_REDUCTIONS = (
    "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean",
    "ReduceMin", "ReduceProd", "ReduceSumSquare",
)  # fmt: skip


def _integers(node: OnnxNode, name: str) -> Sequence[int] | None:
    value = node.attrs.pop(name, None)
    if value is not None and not isinstance(value, tuple):
        raise ImportFault(f"attribute {name!r} must be a list")
    return value


def _move(node: OnnxNode, emit: Emit, name: str, index: int) -> None:
    """Turn a list attribute into a constant input."""
    values = _integers(node, name)
    if values is not None:
        node.set_input(index, emit.ints(values, name))


@upgrade(*_REDUCTIONS, until=17)
@upgrade("ReduceSum", until=12)
def reduce_axes(node: OnnxNode, emit: Emit) -> None:
    """An empty list of axes meant all of them, as an omitted input does."""
    if node.attrs.get("axes") == ():
        del node.attrs["axes"]
    _move(node, emit, "axes", 1)


@upgrade("Squeeze", "Unsqueeze", until=12)
def squeeze_axes(node: OnnxNode, emit: Emit) -> None:
    _move(node, emit, "axes", 1)


@upgrade("Slice", until=9)
def slice_bounds(node: OnnxNode, emit: Emit) -> None:
    for index, name in enumerate(("starts", "ends", "axes"), 1):
        _move(node, emit, name, index)


@upgrade("Reshape", until=4)
def reshape_target(node: OnnxNode, emit: Emit) -> None:
    _move(node, emit, "shape", 1)


@upgrade("Split", until=12)
def split_sizes(node: OnnxNode, emit: Emit) -> None:
    """Opset 1 had the sizes as an input, opset 2 as an attribute, opset 13 as an input."""
    _move(node, emit, "split", 1)


@upgrade("TopK", until=9)
def topk_count(node: OnnxNode, emit: Emit) -> None:
    k = node.attrs.pop("k")
    assert isinstance(k, int)
    node.set_input(1, emit.ints([k], "k"))


@upgrade("Clip", until=10)
def clip_bounds(node: OnnxNode, emit: Emit) -> None:
    x = node.required(0)
    for index, name in enumerate(("min", "max"), 1):
        bound = node.attrs.pop(name, None)
        if isinstance(bound, float):
            node.set_input(index, emit.scalar(bound, x, name))


@upgrade("Pad", until=1)
def rename_paddings(node: OnnxNode, emit: Emit) -> None:
    node.attrs["pads"] = node.attrs.pop("paddings")


@upgrade("Pad", until=10)
def pad_amounts(node: OnnxNode, emit: Emit) -> None:
    _move(node, emit, "pads", 1)
    value = node.attrs.pop("value", 0.0)
    if isinstance(value, float) and value != 0.0:
        node.set_input(2, emit.scalar(value, node.required(0), "value"))


@upgrade("DFT", until=19)
def dft_axis(node: OnnxNode, emit: Emit) -> None:
    """The axis was an attribute with the default 1; as an input it defaults to -2."""
    axis = emit.constant(np.array(node.attrs.pop("axis", 1), np.int64), "axis")
    node.set_input(2, axis)


@upgrade("STFT", until=OPSET)
def stft_signal(node: OnnxNode, emit: Emit) -> None:
    """Exporters omit the last axis of a real signal, so [batch, length] is accepted, too."""
    signal = node.required(0)
    if emit.rank(signal) == 2:
        node.inputs[0] = emit("Unsqueeze", signal, emit.ints([2]))
