"""Upsample, Resize and other sampling ops of older opsets."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir.graph import Value
from ...ir.registry import OPSET
from ..emit import Emit
from ..errors import ImportFault
from ..node import OnnxNode
from ..scope import Slot
from . import upgrade


@upgrade("Upsample", until=6)
def upsample_sides(node: OnnxNode, emit: Emit) -> None:
    height, width = node.attrs.pop("height_scale"), node.attrs.pop("width_scale")
    node.attrs["scales"] = (1.0, 1.0, height, width)


@upgrade("Upsample", until=8)
def upsample_scales(node: OnnxNode, emit: Emit) -> None:
    scales = np.array(node.attrs.pop("scales"), np.float32)
    node.set_input(1, emit.constant(scales, "scales"))


@upgrade("Upsample", until=9)
def upsample_to_resize(node: OnnxNode, emit: Emit) -> None:
    if node.attrs.get("mode") == "bilinear":
        node.attrs["mode"] = "linear"
    node.op = "Resize"


@upgrade("Resize", until=10)
def resize_grid(node: OnnxNode, emit: Emit) -> Sequence[Slot] | None:
    """Input positions were ``x / scale``, rounded down for enlargement and up for reduction."""
    x, scales = node.required(0), node.required(1)
    node.inputs = [x, None, scales]
    node.attrs["coordinate_transformation_mode"] = "asymmetric"
    if node.attrs.get("mode", "nearest") != "nearest":
        return None
    factors = emit.known(scales)
    if factors is None:
        emit.warn("Resize-10 with scales known only at run time is read as growing")
    node.attrs["nearest_mode"] = "floor"
    if factors is None or not (factors < 1).any():
        return None
    shrunk = _nearest(x, np.minimum(factors, 1), "ceil", emit)
    return [_nearest(shrunk, np.maximum(factors, 1), "floor", emit)]


def _nearest(x: Value, factors: np.ndarray, rounding: str, emit: Emit) -> Value:
    if (factors == 1).all():
        return x
    return emit(
        "Resize", x, None, emit.constant(factors.astype(np.float32), "scales"),
        mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode=rounding,
    )  # fmt: skip


@upgrade("Resize", until=12)
def resize_tf_half_pixel(node: OnnxNode, emit: Emit) -> Sequence[Slot] | None:
    """Input position ``(x + 0.5) / s``, which no later opset has, is ``(2 x + 1) / (2 s)``.

    So the result is every second element of a resize to twice the size. Axes of scale 1 keep their
    elements.
    """
    if node.attrs.get("coordinate_transformation_mode") != "tf_half_pixel_for_nn":
        return None
    if node.attrs.get("mode") == "nearest" and node.attrs.get("nearest_mode") == "floor":
        # floor((x + 0.5) / s) = round_half_up((x + 0.5) / s - 0.5)
        node.attrs["coordinate_transformation_mode"] = "half_pixel"
        node.attrs["nearest_mode"] = "round_prefer_ceil"
        return None
    x = node.required(0)
    scales, sizes = _given(node, 2, emit), _given(node, 3, emit)
    if scales is not None:
        resized = np.flatnonzero(scales != 1)
        twice = emit.constant(np.where(scales != 1, 2 * scales, 1).astype(np.float32), "scales")
        inputs = [x, node.input(1), twice]
    elif sizes is not None:
        dims = emit.dims(x)
        resized = np.array([i for i, d in enumerate(dims) if d != sizes[i]], np.int64)
        if not all(isinstance(dims[i], int) for i in resized):
            raise ImportFault("tf_half_pixel_for_nn with sizes needs an input of known sizes")
        factors = [2 if i in resized else 1 for i in range(len(dims))]
        inputs = [x, node.input(1), None, emit.ints(sizes * np.array(factors), "sizes")]
    else:
        raise ImportFault("tf_half_pixel_for_nn needs scales or sizes that are constants")
    attrs = {**node.attrs, "coordinate_transformation_mode": "asymmetric"}
    doubled = emit("Resize", *inputs, **attrs)
    axes = [int(a) for a in resized]
    ones, ends = emit.ints([1] * len(axes)), emit.ints([np.iinfo(np.int64).max] * len(axes))
    return [emit("Slice", doubled, ones, ends, emit.ints(axes), emit.ints([2] * len(axes)))]


def _given(node: OnnxNode, index: int, emit: Emit) -> np.ndarray | None:
    """The numbers of a constant input, if it is given and not empty."""
    known = emit.known(node.input(index))
    return None if known is None or known.size == 0 or known.dtype == object else known


@upgrade("Resize", until=OPSET)
def resize_empty_inputs(node: OnnxNode, emit: Emit) -> None:
    """Empty constants, the old way of omitting an input, become omitted inputs."""
    for index in range(1, len(node.inputs)):
        known = emit.known(node.inputs[index])
        if known is not None and known.size == 0:
            node.inputs[index] = None


@upgrade("GridSample", until=19)
def grid_sample_mode(node: OnnxNode, emit: Emit) -> None:
    names = {"bilinear": "linear", "bicubic": "cubic"}
    mode = node.attrs.get("mode", "bilinear")
    assert isinstance(mode, str)
    node.attrs["mode"] = names.get(mode, mode)


@upgrade("RoiAlign", until=15)
def roi_align_pixels(node: OnnxNode, emit: Emit) -> None:
    """Before opset 16 there was no shift by half a pixel."""
    node.attrs["coordinate_transformation_mode"] = "output_half_pixel"
