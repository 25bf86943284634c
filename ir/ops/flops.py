"""The number of arithmetic operations of an op, from the shapes of its inputs and outputs.

A multiply-add counts two. Each rule is the ``flops`` of the ops that are registered with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..dims import Dim
from ..graph import Node, Value
from ..registry import Flops, attribute
from .shape_values import numel

Inputs = Sequence["Value | None"]


def needed(inputs: Inputs, i: int) -> Value:
    """Input ``i``, which is not omitted."""
    value = inputs[i]
    assert value is not None
    return value


def matmul(node: Node, inputs: Inputs) -> Dim:
    """A matrix product: each element of the result is a sum along the last axis of input 0."""
    x = needed(inputs, 0)
    depth = x.shape[-2 if attribute(node, "transA") and x.rank > 1 else -1]
    return 2 * node.out().tensor_type.numel * depth


def convolution(weight: int) -> Flops:
    """A convolution by input ``weight``, as many as its definition has."""

    def rule(node: Node, inputs: Inputs) -> Dim:
        return 2 * node.out().tensor_type.numel * numel(needed(inputs, weight).shape[1:])

    return rule


def transposed_convolution(_node: Node, inputs: Inputs) -> Dim:
    return 2 * needed(inputs, 0).tensor_type.numel * numel(needed(inputs, 1).shape[1:])


def blocked_convolution(node: Node, _inputs: Inputs) -> Dim:
    """Channels that only pad the last block do not count."""
    batch, _, *spatial, _ = node.out().shape
    points = numel((batch, *spatial, *attribute(node, "kernel_shape")))
    groups = int(attribute(node, "group") or 1)
    channels = int(attribute(node, "in_channels")) // groups
    return 2 * points * int(attribute(node, "out_channels")) * channels


def blocked_depthwise(node: Node, _inputs: Inputs) -> Dim:
    """Each output channel is computed from one input channel."""
    batch, _, *spatial, _ = node.out().shape
    points = numel((batch, *spatial, *attribute(node, "kernel_shape")))
    return 2 * points * int(attribute(node, "out_channels"))


def pool(node: Node, _inputs: Inputs) -> Dim:
    """One operation for each element of each window."""
    return node.out().tensor_type.numel * numel(tuple(attribute(node, "kernel_shape")))


def attention(past: int | None) -> Flops:
    """Scores, and their products with values; ``past`` is the input of earlier keys."""

    def rule(node: Node, inputs: Inputs) -> Dim:
        q, keys = needed(inputs, 0), needed(inputs, 1).shape[-2]
        earlier = inputs[past] if past is not None and past < len(inputs) else None
        if earlier is not None:
            keys = keys + earlier.shape[2]
        return 2 * keys * (q.tensor_type.numel + node.out().tensor_type.numel)

    return rule


def projected_attention(node: Node, inputs: Inputs) -> Dim:
    """Attention with the projection of its operands in front."""
    x, w = needed(inputs, 0), needed(inputs, 1)
    projections = 2 * x.tensor_type.numel * w.shape[1]
    return projections + 4 * node.out().tensor_type.numel * x.shape[1]


def recurrent(_node: Node, inputs: Inputs) -> Dim:
    """Every step multiplies by all weights of the input and of the state."""
    x, w, r = (needed(inputs, i) for i in range(3))
    weights = w.tensor_type.numel + r.tensor_type.numel
    return 2 * x.shape[0] * x.shape[1] * weights
