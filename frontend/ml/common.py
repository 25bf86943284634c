"""Helpers of the expansions of ai.onnx.ml ops: examples as rows of floats, class labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...ir.graph import Value
from ...ir.onnx_types import element_code
from ..emit import Emit
from ..errors import ImportFault
from ..node import OnnxNode


def floats(x: Value, emit: Emit) -> Value:
    """``x`` as float64 if it is that, else as float32."""
    return x if x.dtype in ("float32", "float64") else convert(x, "float32", emit)


def convert(x: Value, dtype: str, emit: Emit) -> Value:
    """``x`` cast to another element type, or itself if it has that."""
    return x if x.dtype == dtype else emit("Cast", x, to=element_code(dtype))


def examples(node: OnnxNode, emit: Emit) -> Value:
    """The first input as a matrix of floats with a row for each example; a vector is one."""
    x = floats(node.required(0), emit)
    rank = emit.rank(x)
    if rank == 1:
        return emit("Unsqueeze", x, emit.ints([0]))
    if rank != 2:
        raise ImportFault(f"takes examples as the rows of a matrix, not {x.type}")
    return x


def numbers(node: OnnxNode, name: str, like: Value) -> np.ndarray | None:
    """A list or tensor attribute as an array of the float type of ``like``; None for no entries.

    A list may be given as a tensor of another element type under ``name`` with ``_as_tensor``.
    """
    given: Any = node.attrs.get(f"{name}_as_tensor")
    if given is None or not given.size:
        given = node.attrs.get(name)
    array = np.asarray(() if given is None else given, like.dtype).reshape(-1)
    return array if array.size else None


def integers(node: OnnxNode, name: str) -> np.ndarray:
    """A list attribute as int64, empty where it is absent."""
    return np.asarray(node.attrs.get(name, ()), np.int64)


def text(node: OnnxNode, name: str, default: str) -> str:
    """An attribute that names one of several choices."""
    return str(node.attrs.get(name, default))


def class_labels(node: OnnxNode, ints: str) -> np.ndarray:
    """The labels of the classes: int64, or strings as objects.

    ``ints`` names the attribute with integer labels. Raises :class:`ImportFault` for fewer than
    two.
    """
    strings: Any = node.attrs.get("classlabels_strings") or ()
    labels = np.array(strings, object) if strings else integers(node, ints)
    if labels.size < 2:
        raise ImportFault(f"has {labels.size} class labels; a classifier needs two")
    return labels


def pick_labels(labels: np.ndarray, which: Value, emit: Emit) -> Value:
    """The labels of the classes with the numbers ``which`` (int64), one for each example."""
    if labels.dtype != object and np.array_equal(labels, np.arange(len(labels))):
        return which
    return emit("Gather", emit.constant(labels, "labels"), which, axis=0)


def best(scores: Value, emit: Emit) -> Value:
    """The index of the highest score of each row, the first of equals."""
    return emit("ArgMax", scores, axis=1, keepdims=0)


def opposite_first(score: Value, emit: Emit) -> Value:
    """``[-s, s]`` for a column of scores of the second of two classes."""
    return emit("Concat", emit("Neg", score), score, axis=1)


def check_columns(x: Value, found: int, what: str, emit: Emit) -> None:
    """Raise :class:`ImportFault` where examples have fewer than ``found`` features."""
    have = emit.dims(x)[1]
    if isinstance(have, int) and have < found:
        raise ImportFault(f"{what} {found} features, the examples have {have}")


def one_of(name: str, value: str, choices: Sequence[str]) -> str:
    """``value`` of the attribute ``name``; raises :class:`ImportFault` for another."""
    if value not in choices:
        raise ImportFault(f"{name} {value!r} is not one of {', '.join(choices)}")
    return value
