"""The builder that rules for axis maps are written with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import wraps
from math import prod
from typing import Any, TypeAlias

from ..dims import Dim, known_equal
from ..graph import Graph, Node, Value
from ..registry import attribute
from ..types import Shape, TensorType
from .map import UNIT, Axes, Axis, AxisMap, Combine, Factor, Kind, Piece, whole

Rule: TypeAlias = "Callable[[Graph, Node], AxisMap | None]"
"""A rule, which an op registers as ``axes``: gives the axis map of a typed node, or None."""


class Builder:
    """Collects the factors and axes of one node, whose inputs and outputs have known ranks.

    Axes of operands that a rule does not describe are opaque, unless they have one element.
    """

    def __init__(self, graph: Graph, node: Node, shapes: list[Shape | None]) -> None:
        self.node = node
        self.inputs = graph.inputs_of(node)
        self._shapes = shapes
        self._factors: list[Factor] = []
        self._operands: dict[int, Axes] = {}
        self._results: dict[int, Axes] = {}

    # ---- reading -----------------------------------------------------------------------------

    def has(self, i: int) -> bool:
        """Is operand ``i`` given?"""
        return i < len(self._shapes) and self._shapes[i] is not None

    def shape(self, i: int = 0) -> Shape:
        """The dims of operand ``i``, which is given."""
        found = self._shapes[i]
        assert found is not None
        return found

    def out(self, k: int = 0) -> Shape:
        """The dims of result ``k``."""
        return self.node.out(k).shape

    def attr(self, name: str) -> Any:
        """An attribute of the node, or its op's default, or None."""
        return attribute(self.node, name)

    def ints(self, i: int) -> list[int] | None:
        """The elements of operand ``i`` if it is a constant of integers, else None."""
        return constant_ints(self.inputs[i]) if self.has(i) else None

    # ---- factors -----------------------------------------------------------------------------

    def factor(
        self, size: Dim, kind: Kind = Kind.MAPPED, combine: Combine | None = None, *,
        fixed: bool = False, summed: bool = False,
    ) -> int:  # fmt: skip
        """Add a factor; returns its number, by which :func:`~.map.whole` and pieces refer to it."""
        self._factors.append(Factor(size, kind, combine, fixed, summed))
        return len(self._factors) - 1

    def reduced(self, size: Dim, combine: Combine | None = None, *, summed: bool = False) -> int:
        """Add a factor that no result has; returns its number."""
        return self.factor(size, Kind.REDUCED, combine, summed=summed)

    def opaque(self, size: Dim) -> Axis:
        """An axis of which nothing is known."""
        return whole(self.factor(size, Kind.OPAQUE))

    def axes(self, shape: Iterable[Dim], kind: Kind = Kind.MAPPED) -> list[Axis]:
        """An axis of one new factor for each dim."""
        return [whole(self.factor(d, kind)) for d in shape]

    def withdraw(self, axis: Axis) -> None:
        """Make the factors of an axis opaque."""
        for piece in axis:
            for f in piece.factors:
                self._factors[f] = Factor(self._factors[f].size, Kind.OPAQUE)

    # ---- tensors -----------------------------------------------------------------------------

    def take(self, i: int, axes: Sequence[Axis]) -> None:
        """Operand ``i``, if it is given, has these axes."""
        if self.has(i):
            self._operands[i] = self._to_the_end(axes, self.shape(i))

    def give(self, axes: Sequence[Axis], k: int = 0) -> None:
        """Result ``k``, if the node has it, has these axes."""
        if k < len(self.node.outputs):
            self._results[k] = self._to_the_end(axes, self.out(k))

    def _to_the_end(self, axes: Sequence[Axis], shape: Shape) -> Axes:
        """The axes; those that a plain piece does not fill get one more piece for the rest, which
        is not read, or does not depend on an operand.
        """
        return tuple(self._filled(axis, d) for axis, d in zip(axes, shape, strict=True))

    def _filled(self, axis: Axis, d: Dim) -> Axis:
        (piece, *more) = axis
        size: Dim = prod((self._factors[f].size for f in piece.factors), start=1)
        if more or not piece.is_plain or known_equal(size, d):
            return axis
        return piece, Piece((self.factor(d - size),), size)

    def broadcast(self, i: int, axes: Sequence[Axis], shape: Sequence[Dim]) -> None:
        """Operand ``i``, if it is given, broadcasts to a tensor of these axes and dims.

        If it is not known whether a dim is 1, the axis is opaque.
        """
        if not self.has(i):
            return
        mine, lead = self.shape(i), len(shape) - len(self.shape(i))
        found = []
        for a, d in enumerate(mine):
            at = lead + a
            if at >= 0 and known_equal(d, shape[at]):
                found.append(axes[at])
            elif d == 1:
                found.append(UNIT)
            else:
                if at >= 0:
                    self.withdraw(axes[at])
                found.append(self.opaque(d))
        self.take(i, found)

    def entries(self, i: int, axis: Axis, size: Dim) -> None:
        """Operand ``i``, if it is given, is one number, or a vector along ``axis``."""
        if self.has(i) and len(self.shape(i)) == 1:
            self.broadcast(i, [axis], [size])

    def build(
        self, addends: Iterable[int] = (), counts: Mapping[str, Sequence[int]] | None = None
    ) -> AxisMap:
        """The map of the collected axes; ``addends`` and ``counts`` are described at
        :class:`AxisMap`.
        """
        for i, shape in enumerate(self._shapes):
            if shape is not None and i not in self._operands:
                self._operands[i] = tuple(UNIT if d == 1 else self.opaque(d) for d in shape)
        results = [self._results.get(k) for k in range(len(self.node.outputs))]
        return AxisMap(
            tuple(self._factors),
            tuple(self._operands.get(i) for i in range(len(self._shapes))),
            tuple(results),
            frozenset(i for i in addends if self.has(i)),
            tuple((name, tuple(factors)) for name, factors in (counts or {}).items()),
        )


def constant_ints(value: Value | None) -> list[int] | None:
    """The elements of a constant of integers; None for other values."""
    array = None if value is None else value.constant
    if array is None or array.dtype.kind not in "iu":
        return None
    return [int(v) for v in array.reshape(-1)]


def rule(describe: Callable[[Builder], AxisMap | None]) -> Rule:
    """A rule that calls ``describe`` if all inputs and outputs are tensors of known ranks."""

    @wraps(describe)
    def apply(graph: Graph, node: Node) -> AxisMap | None:
        shapes: list[Shape | None] = []
        for value in graph.inputs_of(node):
            t = None if value is None else value.type
            if t is not None and (not isinstance(t, TensorType) or t.shape is None):
                return None
            shapes.append(None if t is None else t.shape)
        types = [out.type for out in node.outputs]
        if not all(isinstance(t, TensorType) and t.shape is not None for t in types):
            return None
        return describe(Builder(graph, node, shapes))

    return apply


__all__ = ["Builder", "Rule", "constant_ints", "rule"]
