"""Lifetimes of values in one graph, and the arena plan that follows from them."""

from __future__ import annotations

from ..ir.graph import Graph, Node, Value
from ..ir.types import TensorType
from .classify import is_opaque, is_view
from .memory import Interval, plan
from .storage import storage_bytes


class Liveness:
    """The order of execution, when each value is last used, and where planned values live.

    ``planned`` values sit at fixed offsets of one arena. A value is planned where its size is
    static and only kernels read it: what control flow and host functions see may outlive its
    last use here.
    """

    def __init__(self, graph: Graph, planned: bool = True) -> None:
        self.graph = graph
        self.order = graph.topological()
        self._step = {node: i for i, node in enumerate(self.order)}
        self._root: dict[Value, Value] = {}
        self._last: dict[Value, int] = {}
        self._escapes: set[Value] = set()
        self._scan()
        self._dead: dict[Node, list[Value]] = {}
        self._offsets: dict[Value, int] = {}
        self.arena_bytes = 0
        if planned:
            self._plan()
        self._collect_dead()

    def root(self, value: Value) -> Value:
        return self._root.get(value, value)

    def offset(self, value: Value) -> int | None:
        """The value's byte offset in the arena, or None where it has storage of its own."""
        return self._offsets.get(value)

    def dead_after(self, node: Node) -> list[Value]:
        """Values with storage of their own that nothing reads after ``node``."""
        return self._dead.get(node, [])

    def _scan(self) -> None:
        for step, node in enumerate(self.order):
            opaque = is_opaque(self.graph, node)
            for v in self.graph.inputs_of(node):
                if v is not None:
                    root = self.root(v)
                    self._last[root] = step
                    if opaque:
                        self._escapes.add(root)
            if is_view(self.graph, node):
                source = self.graph.input(node, 0)
                assert source is not None
                self._root[node.out()] = self.root(source)
        for v in self.graph.outputs:
            self._escapes.add(self.root(v))
            self._last[self.root(v)] = len(self.order)

    def _plan(self) -> None:
        values = []
        for node in self.order:
            if is_opaque(self.graph, node) or is_view(self.graph, node):
                continue
            for v in node.values:
                t = v.type
                planned = v in self._last and v not in self._escapes
                if planned and isinstance(t, TensorType) and t.is_static:
                    values.append(v)
        intervals = [
            Interval(self._step[v.node], self._last[v], _bytes(v.tensor_type)) for v in values
        ]
        offsets, self.arena_bytes = plan(intervals)
        self._offsets = dict(zip(values, offsets, strict=True))

    def _collect_dead(self) -> None:
        aliases: dict[Value, list[Value]] = {}
        for alias, root in self._root.items():
            aliases.setdefault(root, []).append(alias)
        for root, step in self._last.items():
            if step < len(self.order) and root not in self._offsets and root.node.op not in (
                "Input", "Constant",
            ):  # fmt: skip
                self._dead.setdefault(self.order[step], []).extend([root, *aliases.get(root, [])])


def _bytes(t: TensorType) -> int:
    total = storage_bytes(t.dtype.name)
    for d in t.static_shape:
        total *= d
    return total
