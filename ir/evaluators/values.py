"""Ops on whole values: a sequence is a Python list, an empty optional is None."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import OperandError
from ..graph import Node
from ..registry import Evaluate, attribute


def _identity(_node: Node, inputs: list[Any]) -> list[Any]:
    return [inputs[0]]


def _optional(_node: Node, inputs: list[Any]) -> list[Any]:
    return [inputs[0] if inputs else None]


def _has_element(_node: Node, inputs: list[Any]) -> list[Any]:
    return [np.array(bool(inputs) and inputs[0] is not None)]


def _get_element(_node: Node, inputs: list[Any]) -> list[Any]:
    if inputs[0] is None:
        raise OperandError("the optional holds no value")
    return [inputs[0]]


def _construct(_node: Node, inputs: list[Any]) -> list[Any]:
    return [list(inputs)]


def _empty(_node: Node, _inputs: list[Any]) -> list[Any]:
    return [[]]


def _length(_node: Node, inputs: list[Any]) -> list[Any]:
    return [np.array(len(inputs[0]), np.int64)]


def _at(_node: Node, inputs: list[Any]) -> list[Any]:
    return [inputs[0][_position(inputs[1], len(inputs[0]), len(inputs[0]) - 1)]]


def _insert(_node: Node, inputs: list[Any]) -> list[Any]:
    items = list(inputs[0])
    at = len(items) if len(inputs) < 3 or inputs[2] is None else inputs[2]
    items.insert(_position(at, len(items), len(items)), inputs[1])
    return [items]


def _erase(_node: Node, inputs: list[Any]) -> list[Any]:
    items = list(inputs[0])
    at = -1 if len(inputs) < 2 or inputs[1] is None else inputs[1]
    del items[_position(at, len(items), len(items) - 1)]
    return [items]


def _position(index: Any, size: int, last: int) -> int:
    """A position from 0 to ``last`` in a sequence of ``size``; negative ones count from its end."""
    at = int(np.asarray(index).reshape(()))
    if not -size <= at <= last:
        raise OperandError(f"position {at} is outside of a sequence of {size}")
    return at + size if at < 0 else at


def _concat(node: Node, inputs: list[Any]) -> list[Any]:
    axis = int(attribute(node, "axis"))
    join = np.stack if attribute(node, "new_axis") else np.concatenate
    return [join(inputs[0], axis=axis)]


def _split(node: Node, inputs: list[Any]) -> list[Any]:
    x, split = [*inputs, None][:2]
    axis = int(attribute(node, "axis") or 0)
    keep = split is not None or bool(attribute(node, "keepdims"))
    sizes = _sizes(x.shape[axis], split)
    parts = np.split(x, np.cumsum(sizes)[:-1], axis=axis) if sizes else []
    return [parts if keep else [p.squeeze(axis) for p in parts]]


def _sizes(extent: int, split: Any) -> list[int]:
    if split is not None and np.ndim(split):
        return [int(s) for s in split]
    size = 1 if split is None else int(split)
    full = [size] * (extent // size)
    return full if extent % size == 0 else [*full, extent % size]


VALUE_EVALUATORS: dict[str, Evaluate] = {
    "ConcatFromSequence": _concat,
    "Identity": _identity,
    "Optional": _optional,
    "OptionalGetElement": _get_element,
    "OptionalHasElement": _has_element,
    "SequenceAt": _at,
    "SequenceConstruct": _construct,
    "SequenceEmpty": _empty,
    "SequenceErase": _erase,
    "SequenceInsert": _insert,
    "SequenceLength": _length,
    "SplitToSequence": _split,
}
