"""Preparation of features: Scaler, Normalizer, Binarizer, Imputer, FeatureVectorizer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir.graph import Value
from ...ir.types import to_numpy_dtype
from ..emit import Emit
from ..errors import ImportFault
from ..node import OnnxNode
from .common import convert, floats, integers, numbers, one_of, text


def scaler(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """``(x - offset) * scale``; both of one element or one for each feature."""
    x = floats(node.required(0), emit)
    for name, op in (("offset", "Sub"), ("scale", "Mul")):
        given = numbers(node, name, x)
        if given is not None:
            x = emit(op, x, emit.constant(_per_feature(given, x, name, emit), name))
    return [convert(x, "float32", emit)]


def _per_feature(values: np.ndarray, x: Value, name: str, emit: Emit) -> np.ndarray:
    """``values`` in the shape that broadcasts along the features, the last of one or two axes."""
    if values.size == 1:
        return values.reshape(())
    dims = emit.dims(x)
    if len(dims) not in (1, 2):
        raise ImportFault(f"{name} has an entry for each feature, but {x.type} is no matrix")
    if isinstance(dims[-1], int) and dims[-1] != values.size:
        raise ImportFault(f"{name} has {values.size} entries for {dims[-1]} features")
    return values


def normalizer(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """Each row divided by its MAX, L1 or L2 norm; rows of norm 0 stay."""
    norm = one_of("norm", text(node, "norm", "MAX"), ("MAX", "L1", "L2"))
    x = floats(node.required(0), emit)
    if emit.rank(x) not in (1, 2):
        raise ImportFault(f"normalizes vectors and the rows of matrices, not {x.type}")
    reduction = {"MAX": "ReduceMax", "L1": "ReduceL1", "L2": "ReduceL2"}[norm]
    size = emit(reduction, x, emit.ints([-1]), keepdims=1)
    empty = emit("Equal", size, emit.scalar(0, size))
    divisor = emit("Where", empty, emit.scalar(1, size), size)
    return [convert(emit("Div", x, divisor), "float32", emit)]


def binarizer(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """1 where an element is above the threshold, else 0, in the type of the input."""
    x = node.required(0)
    wide = floats(x, emit)
    above = emit("Greater", wide, emit.scalar(_float(node, "threshold"), wide))
    return [convert(above, x.dtype, emit)]


def _float(node: OnnxNode, name: str) -> float:
    value = node.attrs.get(name, 0.0)
    assert isinstance(value, float)
    return value


def imputer(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """Elements that equal one value (or are NaN) replaced, with a value for each feature."""
    x = node.required(0)
    if to_numpy_dtype(x.dtype).kind == "f":
        values = numbers(node, "imputed_value_floats", x)
        old: float | int = _float(node, "replaced_value_float")
    else:
        given = integers(node, "imputed_value_int64s")
        values = given.astype(to_numpy_dtype(x.dtype)) if given.size else None
        old = int(node.attrs.get("replaced_value_int64", 0))  # type: ignore[arg-type]
    if values is None:
        raise ImportFault(f"has no imputed values for elements of type {x.dtype}")
    new = emit.constant(_per_feature(values, x, "imputed values", emit), "imputed")
    missing = emit("IsNaN", x) if old != old else emit("Equal", x, emit.scalar(old, x))
    return [emit("Where", missing, new, x)]


def feature_vectorizer(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """The inputs concatenated as float32, each cut or padded with zeros to its dimension."""
    sizes = integers(node, "inputdimensions").tolist()
    inputs = [node.required(i) for i in range(len(node.inputs))]
    if len(sizes) != len(inputs):
        raise ImportFault(f"has {len(inputs)} inputs and {len(sizes)} input dimensions")
    parts = [_columns(x, n, emit) for x, n in zip(inputs, sizes, strict=True)]
    return [emit("Concat", *parts, axis=1)]


def _columns(x: Value, count: int, emit: Emit) -> Value:
    x = convert(x, "float32", emit)
    rank = emit.rank(x)
    if rank == 1:
        x = emit("Unsqueeze", x, emit.ints([0]))
    elif rank > 2:
        x = emit("Flatten", x, axis=1)
    have = emit.dims(x)[-1] if rank else None
    if not isinstance(have, int):
        raise ImportFault(f"the number of features of {x.name!r} must be known")
    if have < count:
        return emit("Pad", x, emit.ints([0, 0, 0, count - have]))
    if have > count:
        return emit("Slice", x, emit.ints([0]), emit.ints([count]), emit.ints([1]))
    return x
