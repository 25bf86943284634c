"""What is known of the signs of floats, from the op that made them."""

from __future__ import annotations

import numpy as np

from ..ir.graph import Graph, Value
from ..ir.registry import attribute, has_trait
from ..ir.traits import Trait
from .queries import splat

_DEPTH = 8

_MOVES = frozenset({"kiln.Reshape", "kiln.Slice", "Transpose"})
_KEEPS = _MOVES | {"kiln.Expand", "Identity", "ReduceMean", "ReduceSum", "Sqrt"}
"""Ops whose results are +0 or greater where their first operand is."""


def not_negative(graph: Graph, value: Value, depth: int = _DEPTH) -> bool:
    """Is every element +0, positive or NaN?"""
    node = value.node
    array = value.constant
    if array is not None:
        return array.dtype != object and not bool(np.signbit(array.astype(np.float64)).any())
    if has_trait(node, Trait.NONNEGATIVE):
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
        return _rules_out_negative_zero(a) or _rules_out_negative_zero(b, node.key == "Sub")
    if node.key == "Cast":
        source = graph.required_inputs(node)[0]
        return not source.tensor_type.dtype.is_float
    return not_negative(graph, value)


def _rules_out_negative_zero(term: Value, subtracted: bool = False) -> bool:
    """Is this term of a sum a constant without -0 (without +0 where it is subtracted)?"""
    array = term.constant
    if array is None or array.dtype == object:
        return False
    wrong = np.signbit(array.astype(np.float64)) != subtracted
    return not bool(np.any((array == 0) & wrong))


def zeros_look_alike(graph: Graph, value: Value) -> bool:
    """Do all that use ``value`` give the same for -0 and +0?"""
    uses = graph.uses(value)
    return bool(uses) and all(has_trait(consumer, Trait.IGNORES_ZERO_SIGN) for consumer, _ in uses)


def is_sum(graph: Graph, value: Value, depth: int = _DEPTH) -> bool:
    """Have zeros among ``value`` no defined sign, since it is, or adds, a sum of many terms?"""
    node = value.node
    if has_trait(node, Trait.UNORDERED_SUM):
        return not attribute(node, "noop_with_empty_axes")
    if depth == 0 or node.key not in _MOVES | {"Add", "Sub"}:
        return False
    return any(is_sum(graph, v, depth - 1) for v in graph.required_inputs(node))


__all__ = ["is_sum", "never_negative_zero", "not_negative", "zeros_look_alike"]
