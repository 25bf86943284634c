"""Renamed ops, respelled attributes and changed meanings of single ops."""

from __future__ import annotations

from collections.abc import Sequence

import onnx

from ...ir.onnx_types import element_code
from ...ir.types import dtype
from ..emit import Emit
from ..errors import ImportFault
from ..node import OnnxNode
from ..scope import Slot
from . import upgrade

_DOUBLE = onnx.TensorProto.DOUBLE


@upgrade("Scatter", until=10)
def scatter(node: OnnxNode, emit: Emit) -> None:
    node.op = "ScatterElements"


@upgrade("Concat", until=3)
def concat_axis(node: OnnxNode, emit: Emit) -> None:
    """The axis had a default, which only the documentation of the schema states."""
    node.attrs.setdefault("axis", 1)


@upgrade("Cast", until=5)
def cast_target(node: OnnxNode, emit: Emit) -> None:
    """The target type was a string: ``FLOAT``, ``INT64`` ..."""
    name = str(node.attrs["to"]).upper()
    if name not in onnx.TensorProto.DataType.keys():
        raise ImportFault(f"unknown element type {name!r}")
    node.attrs["to"] = onnx.TensorProto.DataType.Value(name)


@upgrade("GRU", until=2)
def gru_direction(node: OnnxNode, emit: Emit) -> None:
    """The default in the first schema is misspelled."""
    if node.attrs.get("direction") == "foward":
        node.attrs["direction"] = "forward"


@upgrade("RNN", "GRU", "LSTM", until=6)
def drop_output_sequence(node: OnnxNode, emit: Emit) -> None:
    """Whether the whole sequence is returned is told by which outputs have names."""
    node.attrs.pop("output_sequence", None)


@upgrade("LpPool", "GlobalLpPool", until=1)
def integer_norm(node: OnnxNode, emit: Emit) -> None:
    p = node.attrs.get("p", 2.0)
    if not isinstance(p, float) or p != int(p):
        raise ImportFault(f"a norm of order {p} is not supported")
    node.attrs["p"] = int(p)


@upgrade("OneHot", until=10)
def one_hot_negative(node: OnnxNode, emit: Emit) -> None:
    """Negative indices were out of range, while today they count from the end."""
    indices, depth = node.required(0), node.required(1)
    limit = emit("CastLike", emit("Reshape", depth, emit.ints([])), indices)
    negative = emit("Less", indices, emit.scalar(0, indices))
    node.inputs[0] = emit("Where", negative, limit, indices)


@upgrade("Erf", until=12)
@upgrade("ReduceLogSum", "ReduceLogSumExp", until=27)
def through_double(node: OnnxNode, emit: Emit) -> Sequence[Slot] | None:
    """Integer tensors are no longer accepted: compute in float64 and convert back."""
    x = node.required(0)
    if dtype(x.dtype).is_float:
        return None
    wide = emit("Cast", x, to=_DOUBLE)
    result = emit(node.op, wide, *node.inputs[1:], **node.attrs)
    return [emit("Cast", result, to=element_code(x.dtype))]


@upgrade("LabelEncoder", until=1, domain="ai.onnx.ml")
def label_encoder_classes(node: OnnxNode, emit: Emit) -> None:
    """One list was used for both directions: from text to index, or from index to text."""
    classes = node.attrs.pop("classes_strings", ())
    assert isinstance(classes, tuple)
    text, number = node.attrs.pop("default_string", "_Unused"), node.attrs.pop("default_int64", -1)
    positions = tuple(range(len(classes)))
    if node.required(0).dtype == "string":
        node.attrs |= {"keys_strings": classes, "values_int64s": positions, "default_int64": number}
    else:
        node.attrs |= {"keys_int64s": positions, "values_strings": classes, "default_string": text}
