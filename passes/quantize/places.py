"""Which tensors are quantized.

Quantized are the operands of products (convolutions, matrix products), since integers multiply
faster there. What they read is followed backwards:

- through ops that only move or choose elements (Reshape, MaxPool, Concat): these run on the
  integers, so what goes in and what comes out has one range;
- through sums of two tensors (residual connections), whose operands are then quantized as well,
  with a range for each;
- through functions that cost as much as the sums in front of them, such as SiLU behind a
  convolution of few channels: what they read is quantized, too, so that they become tables of 256
  results. The same through a product of such a function's result with factors of channels.

Everything else computes floats, in the kernel of the op whose result it takes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from networkx.utils import UnionFind

from ...ir.graph import Graph, Node, Value
from ...ir.registry import has_trait
from ...ir.traits import Trait
from .operands import is_float, terms
from .pairs import Pairing

_SHORT_SUMS = 512
"""Products in a sum up to which a function of it, such as a Sigmoid, takes a good part of the
time."""


@dataclass(frozen=True)
class Use:
    """Input ``index`` of ``node``."""

    node: Node
    index: int


@dataclass
class Places:
    """The tensors of ``graph`` that are quantized.

    ``products`` are the nodes whose operands are quantized, ``left`` those that stay as they are,
    with the reasons. ``weights`` are the constant operands of the former. ``tensors`` are those
    that a run computes, each with the uses that read its quantized form. ``groups`` are sets of
    tensors that have one range, and ``moved`` those that hold elements of others of their group
    and nothing else. ``codes`` are int8 weights by the name of their product, where they are not
    the nearest ones, and ``pairings`` the pairs of weights that must not saturate.
    """

    graph: Graph
    products: list[Node] = field(default_factory=list)
    left: list[tuple[Node, str]] = field(default_factory=list)
    weights: list[Use] = field(default_factory=list)
    tensors: dict[Value, list[Use]] = field(default_factory=dict)
    groups: list[list[Value]] = field(default_factory=list)
    moved: set[Value] = field(default_factory=set)
    codes: dict[str, np.ndarray] = field(default_factory=dict)
    pairings: Mapping[str, Pairing] = field(default_factory=dict)

    def pairing(self, node: Node, index: int) -> Pairing | None:
        """The pairs of operand ``index`` of a product that must not saturate."""
        return self.pairings.get(node.name) if index == 1 else None


Objection: TypeAlias = "Callable[[Node], str | None]"
"""Why a product is to stay as it is, or None."""


def places_of(
    graph: Graph, objection: Objection = lambda _: None, *, follow: bool = True
) -> Places:
    """What to quantize in a typed graph, without its bodies: all products to which there is no
    objection, and, if asked, what is found where their operands are followed backwards.
    """
    search = _Search(graph)
    for node in graph.topological():
        if not has_trait(node, Trait.CONTRACTION):
            continue
        reason = _unfit(graph, node) or objection(node)
        if reason is None:
            search.take(node)
        else:
            search.leave(node, reason)
    if follow:
        search.follow()
    return search.result()


def _unfit(graph: Graph, node: Node) -> str | None:
    """Why integers cannot take the place of a product's operands."""
    operands = graph.inputs_of(node)[:2]
    if len(operands) != 2 or None in operands:
        return "it has not two operands"
    if len(node.outputs) != 1:
        return "it keeps a state"
    for value in operands:
        assert value is not None
        if not is_float(value):
            return f"{value.name!r} is no float32 tensor of known rank"
        if value.constant is not None and not np.isfinite(value.constant).all():
            return f"{value.name!r} holds infinity or NaN"
    return None


class _Search:
    """The tensors found so far; those whose producers are still to be looked at wait."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._places = Places(graph)
        self._same: UnionFind[Value] = UnionFind()
        self._waiting: list[Value] = []

    def take(self, node: Node) -> None:
        """Quantize both operands of a product."""
        self._places.products.append(node)
        for index in (0, 1):
            value = self._graph.input(node, index)
            assert value is not None
            if value.is_constant:
                self._places.weights.append(Use(node, index))
            else:
                self._quantize(value, Use(node, index))

    def leave(self, node: Node, reason: str) -> None:
        self._places.left.append((node, reason))

    def follow(self) -> None:
        """Follow all tensors backwards."""
        while self._waiting:
            value = self._waiting.pop()
            node = value.node
            if _moves(self._graph, node):
                self._places.moved.add(value)
                for index, source in self._sources(node):
                    self._quantize(source, Use(node, index))
                    self._same.union(source, value)
            elif _is_sum(self._graph, node):
                for index, source in self._sources(node):
                    self._quantize(source, Use(node, index))
            elif (read := self._tabled(node)) is not None:
                self._quantize_for_all(value)
                self._quantize_for_all(read)
            elif node.key == "Mul":
                for index, source in self._sources(node):
                    if source.shape == value.shape and self._tabled(source.node) is not None:
                        self._quantize(source, Use(node, index))

    def result(self) -> Places:
        self._places.groups = [
            sorted(group, key=lambda v: (v.node.serial, v.index)) for group in self._same.to_sets()
        ]
        return self._places

    def _quantize(self, value: Value, use: Use) -> None:
        if value not in self._places.tensors:
            self._places.tensors[value] = []
            self._same.union(value)
            self._waiting.append(value)
        if use not in self._places.tensors[value]:
            self._places.tensors[value].append(use)

    def _quantize_for_all(self, value: Value) -> None:
        """Quantize a tensor for every node that reads it, so that nobody needs it in floats."""
        for node, index in self._graph.uses(value):
            if node.op != "Output":
                self._quantize(value, Use(node, index))

    def _tabled(self, node: Node) -> Value | None:
        """What a node reads, if it is a function of it that costs as much as the sums that give
        it.
        """
        if not has_trait(node, Trait.ELEMENTWISE) or has_trait(node, Trait.CHEAP):
            return None
        computed = [v for v in self._graph.inputs_of(node) if v is not None and not v.is_constant]
        if len(computed) != 1 or computed[0].node not in self._places.products:
            return None
        length = terms(self._graph, computed[0].node)
        return computed[0] if length is not None and length <= _SHORT_SUMS else None

    def _sources(self, node: Node) -> Iterator[tuple[int, Value]]:
        """The float tensors that a node reads, with the numbers of the inputs."""
        for index, value in enumerate(self._graph.inputs_of(node)):
            if value is not None and is_float(value):
                yield index, value


def _moves(graph: Graph, node: Node) -> bool:
    """Are the elements of a node's result elements of its float inputs, none of them constant?"""
    picks = any(has_trait(node, t) for t in (Trait.PICKS, Trait.SELECTS, Trait.VIEW))
    floats = [v for v in graph.inputs_of(node) if v is not None and is_float(v)]
    return picks and len(node.outputs) == 1 and not any(v.is_constant for v in floats)


def _is_sum(graph: Graph, node: Node) -> bool:
    """Is a node the sum of two tensors of one shape that a run computes?"""
    if not has_trait(node, Trait.ADDITIVE) or not has_trait(node, Trait.COMMUTATIVE):
        return False
    operands = [v for v in graph.inputs_of(node) if v is not None]
    return (
        len(operands) == 2
        and all(is_float(v) and not v.is_constant for v in operands)
        and operands[0].shape == operands[1].shape == node.out().shape
    )


__all__ = ["Objection", "Places", "Use", "places_of"]
