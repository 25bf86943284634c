"""Normalisation, softmax and dropout of older opsets."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.graph import Value
from ...ir.onnx_types import element_code
from ..emit import Emit
from ..errors import ImportFault
from ..node import OnnxNode
from ..scope import Slot
from . import upgrade


@upgrade("Softmax", "LogSoftmax", "Hardmax", until=12)
def softmax_of_flattened(node: OnnxNode, emit: Emit) -> Sequence[Slot] | None:
    """The input counted as a matrix with the dims from ``axis`` on as its rows."""
    x, axis = node.required(0), node.attrs.get("axis", 1)
    rank = emit.rank(x)
    assert isinstance(axis, int)
    if not -rank <= axis <= rank:
        raise ImportFault(f"axis {axis} is out of range for rank {rank}")
    axis += rank if axis < 0 else 0
    if axis == rank - 1:
        node.attrs["axis"] = -1
        return None
    if all(d == 1 for d in emit.dims(x)[axis + 1 :]) and axis < rank:
        node.attrs["axis"] = axis
        return None
    flat = emit(node.op, emit("Flatten", x, axis=axis), axis=-1)
    return [emit("Reshape", flat, emit("Shape", x), allowzero=1)]


@upgrade("BatchNormalization", until=6)
def drop_is_test(node: OnnxNode, emit: Emit) -> None:
    """The attribute is dropped, as the number of outputs says the same."""
    node.attrs.pop("is_test", None)


@upgrade("BatchNormalization", until=8)
def non_spatial(node: OnnxNode, emit: Emit) -> Sequence[Slot] | None:
    """``spatial=0``: statistics per element of a sample: scale*(x-mean)/sqrt(var+epsilon)+B."""
    if node.attrs.pop("spatial", 1):
        return None
    if any(node.outputs[1:]):
        raise ImportFault("training with spatial=0 is not supported")
    x, scale, bias, mean, var = (node.required(i) for i in range(5))
    sample = emit("Shape", x, start=1)
    scale, bias, mean, var = (emit("Reshape", v, sample) for v in (scale, bias, mean, var))
    epsilon = node.attrs.get("epsilon", 1e-5)
    assert isinstance(epsilon, float)
    deviation = emit("Sqrt", emit("Add", var, emit.scalar(epsilon, var, "epsilon")))
    normal = emit("Div", emit("Sub", x, mean), deviation)
    return [emit("Add", emit("Mul", normal, scale), bias)]


@upgrade("BatchNormalization", until=13)
def training_outputs(node: OnnxNode, emit: Emit) -> None:
    """More than one output meant training; the saved statistics had no defined value."""
    if any(emit.is_used(name) for name in node.outputs[3:]):
        raise ImportFault("outputs saved_mean and saved_var are not supported")
    del node.outputs[3:]
    if any(node.outputs[1:]):
        node.attrs["training_mode"] = 1


@upgrade("GroupNormalization", until=20)
def scale_per_channel(node: OnnxNode, emit: Emit) -> None:
    """Scale and bias had one entry per group; today one per channel."""
    x, groups = node.required(0), node.attrs["num_groups"]
    assert isinstance(groups, int)
    if groups < 1:
        raise ImportFault(f"num_groups is {groups}")
    channels = emit.dims(x)[1] if emit.rank(x) > 1 else 0
    for index in (1, 2):
        node.inputs[index] = _repeat(node.required(index), x, groups, channels == groups, emit)


def _repeat(value: Value, x: Value, groups: int, same: bool, emit: Emit) -> Value:
    if same:
        return value
    channels = emit("Shape", x, start=1, end=2)
    size = emit("Div", channels, emit.ints([groups]))
    column = emit("Unsqueeze", value, emit.ints([1]))
    table = emit("Expand", column, emit("Concat", emit.ints([1]), size, axis=0))
    return emit("Reshape", table, emit.ints([-1]))


@upgrade("Dropout", until=6)
def dropout_is_test(node: OnnxNode, emit: Emit) -> None:
    if not node.attrs.pop("is_test", 0):
        emit.warn("Dropout of an opset below 7 in training mode is read as inference")


@upgrade("Dropout", until=9)
def dropout_mask_type(node: OnnxNode, emit: Emit) -> Sequence[Slot] | None:
    """The mask had the type of the data; today it is bool."""
    if not node.asks_for(1):
        return None
    x = node.required(0)
    y, mask = emit.many("Dropout", [x], {}, 2)
    return [y, emit("Cast", mask, to=element_code(x.dtype))]


@upgrade("Dropout", until=11)
def dropout_ratio(node: OnnxNode, emit: Emit) -> None:
    """These versions are never in training mode, so the ratio has no effect."""
    node.attrs.pop("ratio", None)
