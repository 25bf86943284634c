"""The number of arithmetic operations of a graph, from shapes."""

from __future__ import annotations

from collections.abc import Sequence

from .dims import Dim, is_static
from .graph import Graph, Node, Value
from .registry import has_trait, spec
from .traits import Trait
from .types import TensorType


def graph_flops(graph: Graph) -> int:
    """Operations of one run, where a multiply-add counts two; 0 if they depend on symbols.

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
    """Operations of one node, by the rule of its op; movement takes none.

    Transcendental functions count one, and convolutions as many as their definition has.
    """
    inputs = graph.inputs_of(node)
    if node.key == "kiln.Region" or not _shapes_known(node, inputs):
        return 0
    known = spec(node.key)
    rule = None if known is None else known.flops
    if rule is not None:
        return rule(node, inputs)
    if is_elementwise(node):
        return node.out().tensor_type.numel
    if has_trait(node, Trait.REDUCTION) and inputs and inputs[0] is not None:
        return inputs[0].tensor_type.numel
    return 0


def is_elementwise(node: Node) -> bool:
    """Does the node take one operation for each element of its result?"""
    return any(has_trait(node, t) for t in (Trait.ELEMENTWISE, Trait.GRANULAR, Trait.TABULAR))


def _shapes_known(node: Node, inputs: Sequence[Value | None]) -> bool:
    types = [o.type for o in node.outputs[:1]] + [v.type for v in inputs if v is not None]
    return bool(node.outputs) and all(
        isinstance(t, TensorType) and t.shape is not None for t in types
    )
