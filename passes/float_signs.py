"""Signs of floats that follow from the op that computes them."""

from __future__ import annotations

import numpy as np

from ..ir.graph import Graph, Node, Value
from ..ir.registry import attribute, has_trait
from ..ir.traits import Trait
from .queries import splat

_DEPTH = 8


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
    if node.key == "Mul" and inputs[0] == inputs[1]:
        return True
    if node.key == "Pow" and splat(inputs[1]) == 2:
        return True
    if has_trait(node, Trait.PICKS):
        return not_negative(graph, _first(graph, node), depth - 1)
    if not has_trait(node, Trait.KEEPS_NONNEGATIVE):
        return False
    floats = [v for v in inputs if v.tensor_type.dtype.is_float]
    return bool(floats) and all(not_negative(graph, v, depth - 1) for v in floats)


def not_below_zero(graph: Graph, value: Value, depth: int = _DEPTH) -> bool:
    """Is every element 0 of either sign, positive or NaN?"""
    node = value.node
    if has_trait(node, Trait.NOT_BELOW_ZERO) or not_negative(graph, value, depth):
        return True
    if node.key == "Clip":
        low = graph.input(node, 1)
        least = None if low is None else splat(low)
        return least is not None and least >= 0
    if depth and has_trait(node, Trait.PICKS):
        return not_below_zero(graph, _first(graph, node), depth - 1)
    return False


def never_negative_zero(graph: Graph, value: Value) -> bool:
    """Is no element -0, so that adding +0 changes nothing?

    A sum is -0 only if all of its terms are.
    """
    node = value.node
    if node.key == "Add":
        return any(_rules_out_negative_zero(v) for v in graph.required_inputs(node))
    if node.key == "Sub":
        a, b = graph.required_inputs(node)
        return _rules_out_negative_zero(a) or _rules_out_negative_zero(b, subtracted=True)
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
    """Do all users of ``value`` compute the same for -0 and +0?"""
    uses = graph.uses(value)
    return bool(uses) and all(has_trait(consumer, Trait.IGNORES_ZERO_SIGN) for consumer, _ in uses)


def is_sum(graph: Graph, value: Value, depth: int = _DEPTH) -> bool:
    """Is the sign of zeros in ``value`` undefined, since it is, or adds, a sum of many terms?"""
    node = value.node
    if has_trait(node, Trait.UNORDERED_SUM):
        return not attribute(node, "noop_with_empty_axes")
    if depth == 0:
        return False
    if has_trait(node, Trait.PICKS):
        return is_sum(graph, _first(graph, node), depth - 1)
    adds = has_trait(node, Trait.ADDITIVE)
    return adds and any(is_sum(graph, v, depth - 1) for v in graph.required_inputs(node))


def _first(graph: Graph, node: Node) -> Value:
    value = graph.input(node, 0)
    assert value is not None
    return value


__all__ = ["is_sum", "never_negative_zero", "not_below_zero", "not_negative", "zeros_look_alike"]
