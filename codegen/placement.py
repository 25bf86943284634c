"""Which device runs each node: asked of the target once a graph is optimised, kept in the graph."""

from __future__ import annotations

from ..errors import Blocker
from ..ir.graph import Graph, Node
from ..ir.registry import has_trait
from ..ir.traits import Trait
from ..targets.base import Target, targets_of
from .classify import is_host, is_view
from .errors import CodegenError


def place(graph: Graph, target: Target) -> None:
    """Give every node that needs a kernel a device, in bodies of control flow too.

    A device that somebody chose before stays. What no kernel computes has none: views are where
    their source is, and host functions, control flow and checks are the host's affair. Raises
    :class:`CodegenError` for devices that the target has no kernels for.
    """
    if target.host is target:
        return
    devices, blockers = targets_of(target), []
    for part in graph.walk(regions=False):
        for node in part.nodes:
            if not needs_kernel(part, node):
                node.device = ""
                continue
            node.device = node.device or target.place(part, node)
            if node.device not in devices:
                reason = f"target {target.spec} makes no kernels for the device {node.device!r}"
                blockers.append(Blocker(reason, node.name, node.key))
    if blockers:
        raise CodegenError(*blockers)


def needs_kernel(graph: Graph, node: Node) -> bool:
    """Does a node run as a kernel of its own?"""
    other = has_trait(node, Trait.EFFECT) or has_trait(node, Trait.CONTROL_FLOW)
    return not (other or is_view(graph, node) or is_host(graph, node))


__all__ = ["needs_kernel", "place"]
