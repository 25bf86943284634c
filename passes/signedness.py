"""What is known of the signs of floats, from the op that made them."""

from __future__ import annotations

import numpy as np

from ..ir.graph import Graph, Value
from ..ir.registry import attribute
from .rewriter import splat

_DEPTH = 8

_POSITIVE = frozenset({"Abs", "Exp", "Sigmoid", "Softmax", "ReduceL1", "ReduceL2",
                       "ReduceSumSquare"})  # fmt: skip
"""Ops whose results are +0 or greater, or NaN."""

_KEEPS = frozenset({"ReduceSum", "ReduceMean", "Sqrt", "kiln.Reshape", "kiln.Slice",
                    "kiln.Expand", "Transpose", "Identity"})  # fmt: skip
"""Ops whose results are +0 or greater where their first operand is."""

_SUMS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul", "ReduceMean", "ReduceSum",
                   "AveragePool", "GlobalAveragePool", "BatchNormalization",
                   "GroupNormalization", "InstanceNormalization",
                   "LayerNormalization"})  # fmt: skip
"""Ops that end in a sum whose order is their own, so that its zeros have no defined sign."""

_SAME = frozenset({"kiln.Reshape", "Transpose", "kiln.Slice"})


def not_negative(graph: Graph, value: Value, depth: int = _DEPTH) -> bool:
    """Is every element +0, positive or NaN?"""
    node = value.node
    array = value.constant
    if array is not None:
        return array.dtype != object and not bool(np.signbit(array.astype(np.float64)).any())
    if node.key in _POSITIVE:
        return True
    inputs = [v for v in graph.inputs_of(node) if v is not None]
    if depth == 0 or not inputs:
        return False
    if node.key in _KEEPS:
        return not_negative(graph, inputs[0], depth - 1)
    if node.key == "Mul" and inputs[0] == inputs[1]:
        return True
    if node.key == "Pow" and splat(inputs[1]) == 2:
        return True
    if node.key in ("Add", "Mul", "Div", "Max"):
        return all(not_negative(graph, v, depth - 1) for v in inputs)
    return False


def never_negative_zero(graph: Graph, value: Value) -> bool:
    """Is no element -0, so that adding +0 changes nothing?

    A sum is -0 only where all of its terms are.
    """
    node = value.node
    if node.key in ("Add", "Sub"):
        a, b = graph.required_inputs(node)
        return any(_is_no_zero_of(v, node.key == "Sub" and v is b) for v in (a, b))
    if node.key == "Cast":
        source = graph.required_inputs(node)[0]
        return not source.tensor_type.dtype.is_float
    return not_negative(graph, value)


def _is_no_zero_of(value: Value, subtracted: bool) -> bool:
    """Is ``value`` a constant that has no -0 (+0 where it is subtracted)?"""
    array = value.constant
    if array is None or array.dtype == object:
        return False
    wrong = np.signbit(array.astype(np.float64)) != subtracted
    return not bool(np.any((array == 0) & wrong))


_BLIND = frozenset({"Abs", "Cos", "Cosh", "Equal", "Exp", "Greater", "GreaterOrEqual", "IsInf",
                    "IsNaN", "Less", "LessOrEqual", "Sigmoid", "Softmax"})  # fmt: skip
"""Ops that give the same for -0 and +0."""


def zeros_look_alike(graph: Graph, value: Value) -> bool:
    """Do all that use ``value`` give the same for -0 and +0?"""
    uses = graph.uses(value)
    return bool(uses) and all(consumer.key in _BLIND for consumer, _ in uses)


def is_sum(graph: Graph, value: Value, depth: int = _DEPTH) -> bool:
    """Have zeros among ``value`` no defined sign, since it is, or adds, a sum of many terms?"""
    node = value.node
    if node.key in _SUMS:
        return not attribute(node, "noop_with_empty_axes")
    if depth == 0 or node.key not in _SAME | {"Add", "Sub"}:
        return False
    return any(is_sum(graph, v, depth - 1) for v in graph.required_inputs(node))


__all__ = ["is_sum", "never_negative_zero", "not_negative", "zeros_look_alike"]
