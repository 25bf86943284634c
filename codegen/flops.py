"""How many arithmetic operations a graph takes, counted from shapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

from ..ir.dims import Dim, is_static
from ..ir.graph import Graph, Node, Value
from ..ir.ops.linalg_einsum import parse_einsum
from ..ir.ops.rnn import DIRECTIONS
from ..ir.registry import attribute, has_trait
from ..ir.traits import Trait
from ..ir.types import TensorType

_POOLS = frozenset({"MaxPool", "AveragePool", "LpPool", "PoolBlocked"})

Inputs: TypeAlias = "list[Value | None]"
Rule: TypeAlias = Callable[[Node, Inputs], Dim]


def graph_flops(graph: Graph) -> int:
    """Operations of one run (a multiply-add counts two); 0 where symbolic sizes decide.

    Bodies of control flow count once.
    """
    total = count_flops(graph)
    return int(total) if is_static(total) else 0


def count_flops(graph: Graph) -> Dim:
    """The same as an expression over the symbols of the graph's types."""
    total: Dim = 0
    for part in graph.walk():
        for node in part.nodes:
            total = total + node_flops(part, node)
    return total


def node_flops(graph: Graph, node: Node) -> Dim:
    """Operations of one node; movement takes none.

    Transcendental functions count one, and convolutions as many as their definition has.
    """
    inputs = graph.inputs_of(node)
    if node.key == "kiln.Region" or not _shapes_known(node, inputs):
        return 0
    if node.op in PRODUCTS:
        return PRODUCTS[node.op](node, inputs)
    if node.op in _POOLS:
        return node.out().tensor_type.numel * _product(attribute(node, "kernel_shape"))
    if is_elementwise(node):
        return node.out().tensor_type.numel
    if has_trait(node, Trait.REDUCTION) and inputs and inputs[0] is not None:
        return inputs[0].tensor_type.numel
    return 0


def is_elementwise(node: Node) -> bool:
    """Does the node take one operation an element of its result?"""
    return has_trait(node, Trait.ELEMENTWISE) or node.op in ("QuantizeLinear", "DequantizeLinear")


def _shapes_known(node: Node, inputs: Inputs) -> bool:
    types = [o.type for o in node.outputs[:1]] + [v.type for v in inputs if v is not None]
    return bool(node.outputs) and all(
        isinstance(t, TensorType) and t.shape is not None for t in types
    )


def _needed(inputs: Inputs, i: int) -> Value:
    value = inputs[i]
    assert value is not None
    return value


def _given(inputs: Inputs, i: int) -> Value | None:
    return inputs[i] if i < len(inputs) else None


def _product(dims: Iterable[Dim]) -> Dim:
    total: Dim = 1
    for d in dims:
        total = total * d
    return total


# ---- sums of products ----------------------------------------------------------------------------


def _matmul(node: Node, inputs: Inputs) -> Dim:
    x = _needed(inputs, 0)
    depth = x.shape[-2 if attribute(node, "transA") and x.rank > 1 else -1]
    return 2 * node.out().tensor_type.numel * depth


def _conv(weight: int) -> Rule:
    def rule(node: Node, inputs: Inputs) -> Dim:
        depth = _product(_needed(inputs, weight).shape[1:])
        return 2 * node.out().tensor_type.numel * depth

    return rule


def _conv_transpose(_node: Node, inputs: Inputs) -> Dim:
    x, w = _needed(inputs, 0), _needed(inputs, 1)
    return 2 * x.tensor_type.numel * _product(w.shape[1:])


def _conv_blocked(node: Node, _inputs: Inputs) -> Dim:
    """The channels that fill up the last block do not count."""
    batch, _, *spatial, _ = node.out().shape
    points = _product((batch, *spatial, *attribute(node, "kernel_shape")))
    return 2 * points * int(attribute(node, "out_channels")) * _channels_per_group(node)


def _channels_per_group(node: Node) -> int:
    if node.op == "DepthwiseBlocked":
        return 1
    return int(attribute(node, "in_channels")) // int(attribute(node, "group") or 1)


def _einsum(node: Node, inputs: Inputs) -> Dim:
    shapes = [v.shape for v in inputs if v is not None]
    einsum = parse_einsum(attribute(node, "equation"), [len(s) for s in shapes])
    return 2 * _product(einsum.extents(shapes).values())


def _attention(past: int | None) -> Rule:
    """Scores, and their products with values; ``past`` is the input that holds earlier keys."""

    def rule(node: Node, inputs: Inputs) -> Dim:
        q, k = _needed(inputs, 0), _needed(inputs, 1)
        keys = k.shape[-2]
        earlier = None if past is None else _given(inputs, past)
        if earlier is not None:
            keys = keys + earlier.shape[2]
        return 2 * keys * (q.tensor_type.numel + node.out().tensor_type.numel)

    return rule


def _projected_attention(node: Node, inputs: Inputs) -> Dim:
    x, w = _needed(inputs, 0), _needed(inputs, 1)
    projections = 2 * x.tensor_type.numel * w.shape[1]
    return projections + 4 * node.out().tensor_type.numel * x.shape[1]


def _any_attention(node: Node, inputs: Inputs) -> Dim:
    """Three domains have an op of this name."""
    if node.domain == "com.microsoft":
        return _projected_attention(node, inputs)
    return _attention(None if node.domain else 4)(node, inputs)


def _recurrent(_node: Node, inputs: Inputs) -> Dim:
    x, w, r = (_needed(inputs, i) for i in range(3))
    weights = w.tensor_type.numel + r.tensor_type.numel
    return 2 * x.shape[0] * x.shape[1] * weights


def _recurrent_packed(gates: int) -> Rule:
    """The inputs' share of the gates is computed elsewhere."""

    def rule(node: Node, inputs: Inputs) -> Dim:
        x, hidden = _needed(inputs, 0), int(attribute(node, "hidden_size"))
        weights = DIRECTIONS[attribute(node, "direction")] * gates * hidden * hidden
        return 2 * x.shape[0] * x.shape[1] * weights

    return rule


PRODUCTS: dict[str, Rule] = {
    **dict.fromkeys(
        (
            "MatMul", "MatMulInteger", "MatMulPacked", "QLinearMatMul", "FusedMatMul",
            "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "MatMulNBits", "Gemm", "QGemm",
            "FusedGemm",
        ),
        _matmul,
    ),
    **dict.fromkeys(("Conv", "ConvInteger", "FusedConv"), _conv(1)),
    **dict.fromkeys(("ConvBlocked", "DepthwiseBlocked"), _conv_blocked),
    **dict.fromkeys(("RNN", "GRU", "LSTM", "DynamicQuantizeLSTM"), _recurrent),
    "QLinearConv": _conv(3),
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Attention": _any_attention,
    "MultiHeadAttention": _attention(6),
    "RNNPacked": _recurrent_packed(1),
    "GRUPacked": _recurrent_packed(3),
    "LSTMPacked": _recurrent_packed(4),
}  # fmt: skip
"""Ops that multiply and add up, by name."""
