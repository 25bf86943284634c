"""Which axes of a graph are one: the first step to its channels.

The axis map of each node (:mod:`...ir.axes.map`) says which axes of its operands and results are
the same index. Axes that are the same as a whole become one *item*, by a union-find over axes.
What is left are *relations*: an axis that is a product of factors, has several pieces, or is the
part of another one. They couple positions, which :mod:`.channels` works out.

Of a product of factors one is cut: an index of it is all positions of the axis that it is part of.
A head of attention is one index of (head, element), a group of a convolution one of (group,
channel), and of channels that are shuffled in two halves it is one of each half.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import TypeAlias

import numpy as np

from ...ir.axes.map import Axis, AxisMap, Factor, Kind, Piece
from ...ir.axes.query import axes_of, factors_of
from ...ir.dims import Dim
from ...ir.graph import Graph, Node, Value
from ...ir.registry import has_trait
from ...ir.traits import Trait
from ...ir.types import TensorType

FEW = 4
"""An outer factor with fewer indices than this is cut only where it is the larger one: of two
halves that are shuffled, both stay."""

UNSETTLED = frozenset(
    ["Reshape", "Expand", "Slice", "CenterCropPad", "Col2Im", "com.microsoft.ExpandDims"]
)
"""Ops that get the sizes of axes which they map from somewhere in the graph. Where sizes are known,
the pass ``shapes`` has put ops of the dialect in their places."""

_WORDS = {
    Kind.OPAQUE: "takes it as a whole",
    Kind.WINDOWED: "reads neighbouring positions of it",
    Kind.NORMALIZED: "normalizes over it",
    Kind.REDUCED: "reduces it to more than a sum",
}

Place: TypeAlias = "tuple[Node, int, int]"
"""An axis: of result ``(node, index, axis)``, or of a constant where it is read, as operand ``i``
of a node: ``(node, -1 - i, axis)``. A constant that several nodes read may be cut differently for
each."""


@dataclass(frozen=True)
class Part:
    """Positions of an axis by the indices of its factors: ``start`` and on, of these sizes.

    ``items`` are those of the factors; None for factors of one index.
    """

    items: tuple[int | None, ...]
    sizes: tuple[int, ...]
    start: int

    def grid(self) -> np.ndarray:
        """The positions, with an axis for each factor."""
        return self.start + np.arange(prod(self.sizes)).reshape(self.sizes)


@dataclass(frozen=True)
class Relation:
    """An axis, by its item, and the parts that it consists of."""

    item: int
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Parameter:
    """An axis of a constant operand: ``operand`` of ``node`` has the ``item`` along ``axis``.

    Does it make the results' positions (filters), or are they summed over (channels of the input)?
    """

    node: Node
    operand: int
    axis: int
    item: int
    makes: bool


class Coupling:
    """The items of a graph, whose types are inferred, and the relations between them.

    ``reason`` says why no position of an item may be dropped. ``factors`` are the items of each
    node's factors, and ``maps`` the axis maps. ``constants`` are the axes of each node's constants
    as (operand, axis, item), and ``parameters`` those that have a factor in common with others.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.relations: list[Relation] = []
        self.parameters: list[Parameter] = []
        self.constants: dict[Node, list[tuple[int, int, int]]] = {}
        self.factors: dict[Node, list[int | None]] = {}
        self.maps: dict[Node, AxisMap] = {}
        self._parent: list[int] = []
        self._sizes: list[int] = []
        self._reasons: list[str | None] = []
        self._places: dict[Place, int] = {}
        for value in graph.inputs:
            self._refuse(value, "it is an input of the model")
        for node in graph.topological_all():
            if node.key not in ("Input", "Constant", "Output"):
                self._node(node)
        for value in graph.outputs:
            self._refuse(value, "it is a result of the model")

    # ---- reading -----------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._parent)

    def find(self, item: int) -> int:
        """The item that stands for all that are the same as ``item``."""
        parent = self._parent
        while parent[item] != item:
            parent[item] = parent[parent[item]]
            item = parent[item]
        return item

    def size(self, item: int) -> int:
        """The number of positions."""
        return self._sizes[item]

    def reason(self, item: int) -> str | None:
        """Why no position of an item may be dropped; None if some may."""
        return self._reasons[self.find(item)]

    def places(self) -> Iterator[tuple[Place, int]]:
        """Every axis of more than one position with its item."""
        return ((place, self.find(item)) for place, item in self._places.items())

    def axis(self, value: Value, axis: int) -> int | None:
        """The item of an axis of a result; None for axes of one position, or of open size."""
        found = self._places.get((value.node, value.index, axis))
        return None if found is None else self.find(found)

    def operand(self, node: Node, i: int, axis: int) -> int | None:
        """The item of an axis of an operand, as :meth:`axis`."""
        value = self.graph.input(node, i)
        if value is None or not value.is_constant:
            return None if value is None else self.axis(value, axis)
        found = self._places.get((node, -1 - i, axis))
        return None if found is None else self.find(found)

    # ---- building ----------------------------------------------------------------------------

    def refuse(self, item: int, reason: str) -> None:
        """No position of an item may be dropped; the first reason that is given stays."""
        root = self.find(item)
        if self._reasons[root] is None:
            self._reasons[root] = reason

    def _new(self, size: int) -> int:
        item = len(self._parent)
        self._parent.append(item)
        self._sizes.append(size)
        self._reasons.append(None)
        return item

    def _unite(self, a: int, b: int) -> None:
        a, b = self.find(a), self.find(b)
        if a == b:
            return
        first, second = min(a, b), max(a, b)
        self._parent[second] = first
        if self._reasons[first] is None:
            self._reasons[first] = self._reasons[second]

    def _place(self, place: Place, size: Dim) -> int | None:
        """The item of an axis; None where it has one position, or none, or an open number."""
        if not isinstance(size, int) or size < 2:
            return None
        found = self._places.get(place)
        if found is None:
            found = self._places[place] = self._new(size)
        return found

    def _refuse(self, value: Value, reason: str) -> None:
        if not value.is_constant:
            for item in self._axes(value.type, (value.node, value.index)):
                self.refuse(item, reason)

    def _axes(self, t: object, place: tuple[Node, int]) -> Iterator[int]:
        shape = t.shape if isinstance(t, TensorType) else None
        for a, size in enumerate(shape or ()):
            item = self._place((*place, a), size)
            if item is not None:
                yield item

    def _node(self, node: Node) -> None:
        inputs = self.graph.inputs_of(node)
        axes = None if node.key in UNSETTLED else axes_of(self.graph, node)
        if axes is None:
            control = has_trait(node, Trait.CONTROL_FLOW)
            use = "the bodies of {} read it" if control else "nothing is known of how {} uses it"
            told = use.format(_told(node))
            for i, value in enumerate(inputs):
                if value is not None:
                    for held in self._axes(value.type, _operand(node, i, value)):
                        self.refuse(held, told)
            for value in node.values:
                self._refuse(value, told)
            return
        self.maps[node] = axes
        self.factors[node] = items = [self._factor(node, f) for f in axes.factors]
        made = {f for r in axes.results for axis in r or () for f in factors_of(axis)}
        shared = _shared_factors(axes)
        for i, value in enumerate(inputs):
            described = axes.operands[i] if i < len(axes.operands) else None
            if value is None or described is None:
                continue
            place = _operand(node, i, value)
            for a, (axis, size) in enumerate(zip(described, value.shape, strict=True)):
                item = self._place((*place, a), size)
                self._describe(item, size, axis, axes, items)
                found = shared.intersection(factors_of(axis))
                if not value.is_constant or item is None:
                    continue
                self.constants.setdefault(node, []).append((i, a, item))
                if found:
                    self.parameters.append(Parameter(node, i, a, item, bool(found & made)))
        for value, result in zip(node.values, axes.results, strict=True):
            if result is None:
                self._refuse(value, f"nothing is known of this result of {_told(node)}")
                continue
            for a, (axis, size) in enumerate(zip(result, value.shape, strict=True)):
                item = self._place((value.node, value.index, a), size)
                self._describe(item, size, axis, axes, items)

    def _factor(self, node: Node, factor: Factor) -> int | None:
        """The item of a factor of more than one index."""
        if factor.size == 1:
            return None
        if not isinstance(factor.size, int):
            item = self._new(0)
            self.refuse(item, "its size is known only when the model runs")
            return item
        item = self._new(factor.size)
        if factor.fixed:
            self.refuse(item, f"{_told(node)} has so many by its nature")
        elif factor.kind is not Kind.MAPPED and not factor.adds:
            self.refuse(item, f"{_told(node)} {_WORDS[factor.kind]}")
        return item

    def _describe(
        self, item: int | None, size: Dim, axis: Axis, axes: AxisMap, items: Sequence[int | None]
    ) -> None:
        """Note what an axis of a node consists of."""
        found = [i for p in axis for f in p.factors if (i := items[f]) is not None]
        if item is None:
            # One position cannot be dropped; an open number of them is not told apart.
            for f in found:
                self.refuse(f, "its size is known only when the model runs")
            return
        if len(axis) == 1 and len(found) == 1 and axis[0].is_plain:
            if self._sizes[found[0]] == size:
                self._unite(item, found[0])
                return
        parts = [_part(p, axes, items) for p in axis]
        stepped = any(p.step != 1 or p.reach != 1 for p in axis)
        if stepped or any(part is None for part in parts):
            told = "positions of it are taken in steps, or their number is not known"
            for f in [item, *found]:
                self.refuse(f, told)
            return
        self.relations.append(Relation(item, tuple(p for p in parts if p is not None)))


def _shared_factors(axes: AxisMap) -> set[int]:
    """The factors that several tensors of a node have: not the taps of a window."""
    count: Counter[int] = Counter()
    for tensor in (*axes.operands, *axes.results):
        count.update({f for axis in tensor or () for f in factors_of(axis)})
    return {f for f, n in count.items() if n > 1}


def _operand(node: Node, i: int, value: Value) -> tuple[Node, int]:
    return (node, -1 - i) if value.is_constant else (value.node, value.index)


def _part(piece: Piece, axes: AxisMap, items: Sequence[int | None]) -> Part | None:
    sizes = [axes.factors[f].size for f in piece.factors]
    if not isinstance(piece.start, int) or not all(isinstance(d, int) for d in sizes):
        return None
    known = tuple(d for d in sizes if isinstance(d, int))
    return Part(tuple(items[f] for f in piece.factors), known, piece.start)


def _told(node: Node) -> str:
    return f"{node.key} (node {node.name!r})"


__all__ = ["FEW", "Coupling", "Parameter", "Part", "Place", "Relation"]
