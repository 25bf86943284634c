"""How many arithmetic operations a graph takes, counted from shapes."""

from __future__ import annotations

from ..ir.dims import Dim, is_static
from ..ir.graph import Graph, Node, Value
from ..ir.registry import attribute, has_trait
from ..ir.types import TensorType


def graph_flops(graph: Graph) -> int:
    """Operations of one run (a multiply-add counts two); 0 where symbolic sizes decide.

    Bodies of control flow count once.
    """
    total: Dim = 0
    for node in graph.nodes:
        total = total + node_flops(graph, node)
        for _, body in graph.bodies(node):
            total = total + graph_flops(body)
    return int(total) if is_static(total) else 0


def node_flops(graph: Graph, node: Node) -> Dim:
    """Operations of one node; movement takes none."""
    if not node.outputs or not isinstance(node.outputs[0].type, TensorType):
        return 0
    if node.key == "kiln.Region" or node.outputs[0].type.shape is None:
        return 0
    out = node.out()
    inputs = graph.inputs_of(node)
    depth = _depth(node, inputs)
    if depth is not None:
        return 2 * out.tensor_type.numel * depth
    if has_trait(node, "elementwise"):
        return out.tensor_type.numel
    if has_trait(node, "reduction") and inputs and inputs[0] is not None:
        return inputs[0].tensor_type.numel
    return 0


def _depth(node: Node, inputs: list[Value | None]) -> Dim | None:
    """The length of the sums behind one output element, for products and convolutions."""
    w = inputs[1] if len(inputs) > 1 else None
    x = inputs[0] if inputs else None
    if x is None or w is None:
        return None
    if node.op in ("MatMul", "MatMulInteger", "MatMulPacked"):
        return x.shape[-1]
    if node.op == "Gemm":
        return x.shape[0] if attribute(node, "transA") else x.shape[1]
    if node.op in ("Conv", "ConvInteger"):
        return _product(w.shape[1:])
    if node.op == "ConvTranspose":
        return _product((x.shape[1], *w.shape[2:])) // int(attribute(node, "group") or 1)
    if node.op == "ConvBlocked":
        per_group = int(attribute(node, "in_channels")) // int(attribute(node, "group") or 1)
        return _product((per_group, *attribute(node, "kernel_shape")))
    if node.op == "DepthwiseBlocked":
        return _product(attribute(node, "kernel_shape"))
    return None


def _product(dims: tuple[Dim, ...]) -> Dim:
    total: Dim = 1
    for d in dims:
        total = total * d
    return total
