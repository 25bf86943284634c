"""Lifetimes of values in one graph, and the arena plan that follows from them.

Step ``i`` is the ``i``-th node in execution order. In ``a = Conv(x); b = Relu(a); y = Conv(b)``,
``a`` is live from step 0 to 1 and ``b`` from 1 to 2: they need different memory, as the kernel of
step 1 reads one and writes the other. A later value may take the place of ``a``.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

from ..contract import HOST
from ..ir.graph import Graph, Node, Value
from ..ir.types import TensorType
from .classify import is_opaque, is_view
from .concat_in_place import InPlace, place_in_concats, value_bytes
from .memory import Interval, plan


class Liveness:
    """The order of execution, when each value is last used, and where planned values live.

    Planned values lie at static offsets of an arena, of which each memory space has one; ``space``
    tells where a node's results are. A value can be planned if its size is static and only kernels
    read it: control flow and host functions may keep a value beyond its last use here. With
    ``planned=False`` none are, as in bodies of control flow.

    Views share the memory of their *root*, the value that a kernel wrote; lifetimes are of roots.
    """

    def __init__(
        self, graph: Graph, planned: bool = True, space: Callable[[Node], str] = lambda node: HOST
    ) -> None:
        self.graph = graph
        self._space = space
        self.order = graph.topological()
        self._step = {node: i for i, node in enumerate(self.order)}
        self._root: dict[Value, Value] = {}
        self._last: dict[Value, int] = {}
        self._escapes: set[Value] = set()
        self._scan()
        self._dead: dict[Node, list[Value]] = {}
        self._in_place = InPlace()
        self._offsets: dict[Value, int] = {}
        self.arenas: dict[str, int] = {}
        """Bytes of each arena that has any, by its memory space."""
        if planned:
            self._plan()
        self._collect_dead()

    @property
    def arena_bytes(self) -> int:
        return sum(self.arenas.values())

    def root(self, value: Value) -> Value:
        """The value whose memory ``value`` is a view of; itself where it is none."""
        return self._root.get(value, value)

    def offset(self, value: Value) -> int | None:
        """The value's byte offset in the arena, or None where it has storage of its own."""
        return self._offsets.get(value)

    def is_in_place(self, node: Node) -> bool:
        """Is it a ``Concat`` without a kernel, since its inputs are written into its output?"""
        return node in self._in_place.nodes

    def dead_after(self, node: Node) -> list[Value]:
        """Values with storage of their own whose last use is ``node``: it can be freed."""
        return self._dead.get(node, [])

    @cached_property
    def _endings(self) -> dict[int, list[Value]]:
        """The values whose memory nothing reads after a step, views among them."""
        found: dict[int, list[Value]] = {}
        for root, step in self._last.items():
            found.setdefault(step, []).append(root)
        for alias, root in self._root.items():
            found[self._last[root]].append(alias)
        return found

    def ends_after(self, node: Node) -> list[Value]:
        """Values that nothing reads after ``node``, wherever they live."""
        return self._endings.get(self._step[node], [])

    def _scan(self) -> None:
        """Find roots, last uses, and the values that escape: those that cannot be planned."""
        for step, node in enumerate(self.order):
            opaque = is_opaque(self.graph, node)
            for v in self.graph.inputs_of(node):
                if v is not None:
                    root = self.root(v)
                    self._last[root] = step
                    if opaque or self._is_condition(node, v):
                        self._escapes.add(root)
            if is_view(self.graph, node):
                source = self.graph.input(node, 0)
                assert source is not None
                self._root[node.out()] = self.root(source)
        for v in self.graph.outputs:
            self._escapes.add(self.root(v))
            self._last[self.root(v)] = len(self.order)

    def _is_condition(self, node: Node, value: Value) -> bool:
        """Does the virtual machine branch on the value?

        It reads the first byte of a tensor's storage and ignores the tensor's offset in it, so
        such a value cannot lie in the arena.
        """
        return node.key == "kiln.Require" and self.graph.input(node, 1) == value

    def _plan(self) -> None:
        """Plan the arenas, with concats in place unless copying would make them smaller."""
        in_place = place_in_concats(
            self.graph, self.order, self.root, self._is_planned, self._space
        )
        plain = self._places(InPlace())
        best = self._places(in_place) if in_place.nodes else plain
        if sum(best[1].values()) > sum(plain[1].values()):
            in_place, best = InPlace(), plain
        self._in_place = in_place
        self._offsets, self.arenas = best

    def _places(self, in_place: InPlace) -> tuple[dict[Value, int], dict[str, int]]:
        """Offsets of the planned values, and the arenas' sizes in bytes."""
        values = [v for node in self.order for v in node.values if self._is_planned(v)]
        first = {v: self._step[v.node] for v in values if v not in in_place.places}
        last = {v: self._last[v] for v in first}
        for v, (home, _) in in_place.places.items():
            first[home] = min(first[home], self._step[v.node])
            last[home] = max(last[home], self._last[v])
        homes: dict[str, list[Value]] = {}
        for v in first:
            homes.setdefault(self._space(v.node), []).append(v)
        offsets: dict[Value, int] = {}
        totals: dict[str, int] = {}
        for space, own in homes.items():
            found, totals[space] = plan(
                [Interval(first[v], last[v], value_bytes(v.tensor_type)) for v in own]
            )
            offsets.update(zip(own, found, strict=True))
        offsets |= {v: offsets[home] + at for v, (home, at) in in_place.places.items()}
        return offsets, totals

    def _is_planned(self, v: Value) -> bool:
        """Can the value lie in the arena? A kernel writes it, only kernels read it."""
        node, t = v.node, v.type
        if v not in self._last or v in self._escapes or node.key in ("Input", "Constant"):
            return False
        if is_opaque(self.graph, node) or is_view(self.graph, node):
            return False
        return isinstance(t, TensorType) and t.is_static

    def _collect_dead(self) -> None:
        """By node, the values outside of the arena whose last use it is, with their views."""
        aliases: dict[Value, list[Value]] = {}
        for alias, root in self._root.items():
            aliases.setdefault(root, []).append(alias)
        for root, step in self._last.items():
            if step < len(self.order) and root not in self._offsets and root.node.op not in (
                "Input", "Constant",
            ):  # fmt: skip
                self._dead.setdefault(self.order[step], []).extend([root, *aliases.get(root, [])])
