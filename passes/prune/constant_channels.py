"""Channels that are one number each: what is known of them without a run.

A filter of zeros gives its bias, whatever it reads (if that is finite). Elementwise ops and pools
of such a channel give a number again, and so does any product with 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ...ir.axes.query import broadcasts
from ...ir.graph import Graph, Node, Value
from ...ir.interpreter import run_node
from ...ir.registry import attribute
from ...ir.shapes import normalize_axis
from ...ir.types import TensorType, to_numpy_dtype


@dataclass(frozen=True)
class Numbers:
    """Along ``axis`` of a value, the numbers of those positions that are ``known``."""

    axis: int
    numbers: np.ndarray
    known: np.ndarray


def constant_channels(graph: Graph) -> Mapping[Value, Numbers]:
    """The values that have channels of one number each."""
    found: dict[Value, Numbers] = {}
    for node in graph.topological():
        numbers = _of_products(graph, node) or _of_others(graph, node, found)
        if numbers is not None and numbers.known.any():
            found[node.out()] = numbers
    return found


def zero_positions(array: np.ndarray, axis: int) -> np.ndarray:
    """Which positions of an axis have zeros only, bool for each.

    The first element of each position is looked at first: mostly it is enough.
    """
    moved = np.moveaxis(array, axis, 0)
    firsts = moved
    while firsts.ndim > 1:
        firsts = firsts[:, 0]
    zero = firsts == 0
    for i in np.flatnonzero(zero):
        zero[i] = not (moved[i] != 0).any()
    return zero


def weights_of(graph: Graph, node: Node) -> tuple[np.ndarray, int] | None:
    """The constant weights of a convolution or product of floats, and their axis of filters."""
    value = graph.input(node, 1)
    array = None if value is None else value.constant
    if array is None or not array.size:
        return None
    if node.key == "Conv":
        return array, 0
    if node.key == "Gemm" or node.key == "MatMul" and array.ndim == 2:
        return array, 0 if attribute(node, "transB") else 1
    return None


def _of_products(graph: Graph, node: Node) -> Numbers | None:
    weights = weights_of(graph, node)
    if weights is None:
        return None
    zero = zero_positions(*weights)
    bias = graph.input(node, 2)
    numbers = np.zeros(len(zero), weights[0].dtype)
    if bias is not None:
        if bias.constant is None or bias.constant.size not in (1, len(zero)):
            return None
        factor = attribute(node, "beta") if node.key == "Gemm" else 1
        numbers = numbers + bias.constant.reshape(-1) * weights[0].dtype.type(factor)
    return Numbers(1 if node.key != "MatMul" else node.out().rank - 1, numbers, zero)


def _of_others(graph: Graph, node: Node, found: Mapping[Value, Numbers]) -> Numbers | None:
    inputs = graph.inputs_of(node)
    first = next((found[v] for v in inputs if v is not None and v in found), None)
    if first is None or len(node.outputs) > 1:
        return None
    keeps = _POOLS.get(node.key)
    if keeps is not None and keeps(node):
        return first if first.axis == 1 else None
    t = node.out().type
    if not broadcasts(graph, node) or not isinstance(t, TensorType) or not t.dtype.is_float:
        return None
    return _elementwise(graph, node, first, found)


def _always(_node: Node) -> bool:
    return True


def _is_unpadded(node: Node) -> bool:
    """Do windows read no padding?"""
    padded = any(attribute(node, "pads") or ()) or bool(attribute(node, "ceil_mode"))
    return not padded and attribute(node, "auto_pad") in ("NOTSET", "VALID")


_POOLS: Mapping[str, Callable[[Node], bool]] = {
    "AveragePool": _is_unpadded, "MaxPool": _always, "GlobalAveragePool": _always,
    "GlobalMaxPool": _always,
}  # fmt: skip
"""Pools, and when they give the number back that all elements of a channel are."""


def _elementwise(
    graph: Graph, node: Node, first: Numbers, found: Mapping[Value, Numbers]
) -> Numbers | None:
    """The result for operands that are one number each at every position of the axis."""
    rank, size = node.out().rank, len(first.numbers)
    source = next(v for v in graph.inputs_of(node) if v in found)
    assert source is not None
    axis = first.axis - source.rank + rank
    shape = (size, *(1,) * (rank - 1 - axis))
    known, zero = np.ones(size, bool), np.zeros(size, bool)
    operands: list[np.ndarray | None] = []
    for value in graph.inputs_of(node):
        numbers = None if value is None else _numbers(value, axis - rank, size, found)
        if value is None:
            operands.append(None)
            continue
        if numbers is None:
            # 0 times anything is 0; what stands here does not matter then.
            numbers = np.ones(size, to_numpy_dtype(value.tensor_type.dtype)), np.zeros(size, bool)
        known &= numbers[1]
        zero |= numbers[1] & (numbers[0] == 0)
        operands.append(numbers[0].reshape(shape))
    if node.key == "Mul":
        known |= zero
    if not known.any() or node.out().shape[axis] != size:
        return None
    result = np.broadcast_to(run_node(node, operands)[0], shape).reshape(-1)
    return Numbers(axis, np.where(zero, 0, result) if node.key == "Mul" else result, known)


def _numbers(
    value: Value, from_end: int, size: int, found: Mapping[Value, Numbers]
) -> tuple[np.ndarray, np.ndarray] | None:
    """The numbers of an operand at each position of an axis, which counts from the end, and which
    are known; None if none are.
    """
    if value in found:
        held = found[value]
        same = held.axis - value.rank == from_end and len(held.numbers) == size
        return (held.numbers, held.known) if same else None
    array = value.constant
    if array is None:
        return None
    own = normalize_axis(from_end, array.ndim) if array.ndim >= -from_end else None
    if any(d != 1 for a, d in enumerate(array.shape) if a != own):
        return None
    return np.broadcast_to(array.reshape(-1), size), np.ones(size, bool)


__all__ = ["Numbers", "constant_channels", "weights_of", "zero_positions"]
