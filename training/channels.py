"""Which axes of a graph's weights are the same channels.

The axis map of each node says which axes are one index, and which are a product of several. Indices
that meet on an axis of a value become one: the filters of a convolution are the channels that the
next one sums over, and after a flattening the rows of a matrix are (channel, row, column). An axis
that has several pieces, such as that of a concatenation, is an index of its own.
"""

from __future__ import annotations

from math import prod

from ..ir.axes.map import Axis
from ..ir.axes.query import axes_of
from ..ir.graph import Graph, Node, Value

Index = int
"""A number that stands for an index; that of all which are the same as it is its root."""


class Channels:
    """The indices of a graph whose types are inferred."""

    def __init__(self, graph: Graph) -> None:
        self._sizes: list[int] = []
        self._parts: dict[Index, tuple[Index, ...]] = {}
        self._seen: dict[tuple[Value, int], tuple[Index, ...]] = {}
        self._computed: set[Index] = set()
        for node in graph.topological():
            self._node(graph, node)

    def of(self, value: Value, axis: int) -> tuple[Index, ...]:
        """The indices of more than one value that an axis is the product of, outermost first; none
        where no node said.
        """
        found = self._resolved(self._seen.get((value, axis), ()))
        return tuple(i for i in found if self._sizes[i] != 1)

    def size(self, index: Index) -> int:
        """The number of values of an index."""
        return self._sizes[index]

    @property
    def computed(self) -> set[Index]:
        """The indices of results of nodes: not those that only weights have, such as taps."""
        return {i for found in self._computed for i in self._resolved((found,))}

    # ---- building ----------------------------------------------------------------------------

    def _new(self, size: object) -> Index:
        self._sizes.append(size if isinstance(size, int) else 0)
        return len(self._sizes) - 1

    def _node(self, graph: Graph, node: Node) -> None:
        axes = axes_of(graph, node)
        if axes is None:
            return
        indices = [self._new(f.size) for f in axes.factors]
        tensors = [
            *zip(graph.inputs_of(node), axes.operands, strict=False),
            *zip(node.values, axes.results, strict=False),
        ]
        for value, described in tensors:
            if value is None or described is None:
                continue
            for number, axis in enumerate(described):
                self._meet((value, number), self._made_of(axis, indices, value.shape[number]))
                if not value.is_constant:
                    self._computed.update(self._seen[value, number])

    def _made_of(self, axis: Axis, indices: list[Index], size: object) -> tuple[Index, ...]:
        if len(axis) == 1 and axis[0].is_plain:
            return tuple(indices[f] for f in axis[0].factors)
        return (self._new(size),)

    def _meet(self, place: tuple[Value, int], made_of: tuple[Index, ...]) -> None:
        """Two descriptions of one axis: what they consist of is the same."""
        known = self._resolved(self._seen.setdefault(place, made_of))
        new = self._resolved(made_of)
        if known == new or self._total(known) != self._total(new):
            return
        # Indices of one value, such as that of a single group, may be missing in one of them.
        many, others = ([i for i in found if self._sizes[i] != 1] for found in (known, new))
        if [self._sizes[i] for i in many] == [self._sizes[i] for i in others]:
            for a, b in zip(many, others, strict=True):
                self._bind(b, (a,))
        elif len(others) == 1:
            self._bind(others[0], known)
        elif len(many) == 1:
            self._bind(many[0], new)

    def _bind(self, index: Index, parts: tuple[Index, ...]) -> None:
        if index not in parts:
            self._parts[index] = parts

    def _total(self, indices: tuple[Index, ...]) -> int:
        return prod(self._sizes[i] for i in indices)

    def _resolved(self, indices: tuple[Index, ...]) -> tuple[Index, ...]:
        found: list[Index] = []
        for i in indices:
            found += self._resolved(self._parts[i]) if i in self._parts else (i,)
        return tuple(found)


__all__ = ["Channels", "Index"]
