"""The number of nodes of a model with its functions expanded, without expanding them.

Functions that call functions twice double with every level, so a kilobyte can stand for any number
of nodes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import onnx

from .errors import ImportFault
from .keys import FunctionKey, call_key

_ALLOWED, _FACTOR = 2_000, 100
"""Nodes that are always allowed, and nodes that are allowed for each node of the file."""


def require_modest(
    proto: onnx.ModelProto, functions: Mapping[FunctionKey, onnx.FunctionProto], deepest: int
) -> None:
    """Raise :class:`ImportFault` for a model with far too many nodes for the size of its file.

    Calls deeper than ``deepest`` levels, and those in a circle, count as one node, since import
    refuses them anyway.
    """
    written = _Counter({}, 0).nodes(proto.graph.node, 0)
    written += sum(_Counter({}, 0).nodes(f.node, 0) for f in functions.values())
    expanded = _Counter(functions, deepest).nodes(proto.graph.node, 0)
    if expanded > _ALLOWED + _FACTOR * written:
        many = str(expanded) if expanded < 10**9 else "more than a billion"
        raise ImportFault(
            f"has {written} nodes, and {many} with its functions expanded: too many to compile"
        )


class _Counter:
    def __init__(self, functions: Mapping[FunctionKey, onnx.FunctionProto], deepest: int) -> None:
        self._functions = functions
        self._deepest = deepest
        self._known: dict[FunctionKey, int] = {}
        self._open: set[FunctionKey] = set()

    def nodes(self, nodes: Iterable[onnx.NodeProto], depth: int) -> int:
        """The number of nodes with their bodies; a call counts as the nodes of its function."""
        total = 0
        for node in nodes:
            total += self._call(call_key(node), depth)
            for attribute in node.attribute:
                for body in (attribute.g, *attribute.graphs):
                    total += self.nodes(body.node, depth)
        return total

    def _call(self, key: FunctionKey, depth: int) -> int:
        function = self._functions.get(key)
        if function is None or key in self._open or depth >= self._deepest:
            return 1
        if key not in self._known:
            self._open.add(key)
            self._known[key] = 1 + self.nodes(function.node, depth + 1)
            self._open.discard(key)
        return self._known[key]
