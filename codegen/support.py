"""Finds the nodes that cannot be compiled, before any code is generated."""

from __future__ import annotations

from collections.abc import Container, Iterator

from ..contract import HOST
from ..errors import Blocker
from ..ir.graph import Graph, Node
from ..ir.registry import has_trait, spec_of
from ..ir.traits import Trait
from ..targets.base import Target, targets_of
from .classify import is_host, is_view
from .control import CONTROL


def unsupported(graph: Graph, target: Target, host_functions: Container[str]) -> list[Blocker]:
    """Every node that no kernel, view or host function computes; nodes have devices.

    ``host_functions`` are the names of those the runtime has.
    """
    from ..targets.generic.registry import lowered_keys

    kernels = {d: lowered_keys() | t.own_kernels for d, t in targets_of(target).items()}
    return [
        Blocker(reason, node.name, node.key)
        for graph, node in _nodes(graph)
        if (reason := _reason(graph, node, kernels[node.device or HOST], host_functions))
        is not None
    ]


def host_name(node: Node) -> str:
    """The name of the host function that computes a node."""
    own = node.domain not in ("", "ai.onnx.ml") or dim_attributes(node)
    return node.key if own else node.op


def dim_attributes(node: Node) -> tuple[str, ...]:
    """Attributes of dims, which the host function gets as further inputs, since their values are
    only known at run time.
    """
    return spec_of(node).dim_attributes


def _nodes(graph: Graph) -> Iterator[tuple[Graph, Node]]:
    """The operations of a graph and of all bodies inside it, each with its graph."""
    for part in graph.walk():
        for node in part.nodes:
            yield part, node


def _reason(
    graph: Graph, node: Node, kernels: Container[str], host_functions: Container[str]
) -> str | None:
    if has_trait(node, Trait.CONTROL_FLOW):
        return None if node.key in CONTROL else "nothing runs its graphs"
    if has_trait(node, Trait.EFFECT):
        return None if node.key == "kiln.Assert" else "nothing does what it is there for"
    if node.key == "kiln.Region" or is_view(graph, node):
        return None
    if is_host(graph, node):
        there = host_name(node) in host_functions
        return None if there else "the runtime has no function for this op on these types"
    return None if node.key in kernels else "there is no kernel for this op"
