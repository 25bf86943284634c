"""Questions about a graph that rewrite rules ask."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir.dims import Dim, free_symbols
from ..ir.graph import Graph, Node, Value
from ..ir.registry import has_trait, spec_of
from ..ir.traits import Trait
from ..ir.types import type_symbols


def input_symbols(graph: Graph) -> frozenset[str]:
    """The symbols that the types of the graph's inputs bind."""
    return frozenset().union(*(type_symbols(v.type) for v in graph.inputs))


def symbols_bound(dims: Sequence[Dim], bound: frozenset[str], inputs: Sequence[Value]) -> bool:
    """Are the symbols of ``dims`` known when a node with these inputs runs?

    Those of the graph's inputs (``bound``) always are. A symbol of a data-dependent size is, if it
    is in the type of an input, whose producer then runs after the node that determines the size.
    """
    needed = frozenset().union(*(free_symbols(d) for d in dims)) - bound
    if not needed:
        return True
    return needed <= frozenset().union(*(type_symbols(v.type) for v in inputs))


def sole_consumer(graph: Graph, value: Value) -> Node | None:
    """The one node that uses ``value``; None if there are several, or it is a result."""
    found: Node | None = None
    for consumer, edges in graph.out_edges(value.node).items():
        if any(d["output"] == value.index for d in edges.values()):
            if found is not None or consumer is graph.sink:
                return None
            found = consumer
    return found


def single_use(graph: Graph, value: Value) -> bool:
    """Is ``value`` used exactly once, and by an operation?"""
    consumer = sole_consumer(graph, value)
    if consumer is None:
        return False
    edges = graph.out_edges(value.node)[consumer]
    return sum(d["output"] == value.index for d in edges.values()) == 1


def splat(value: Value | None) -> float | int | bool | None:
    """The number that all elements of a constant are equal to, or None."""
    array = None if value is None else value.constant
    if array is None or array.size == 0 or array.dtype == object:
        return None
    first = array.reshape(-1)[:1]
    if array.size > 1 and not _all_equal(array, first):
        return None
    number: float | int | bool = first.tolist()[0]
    return number


def _all_equal(array: np.ndarray, first: np.ndarray) -> bool:
    if not array.strides or not any(array.strides):
        return True
    # The first elements of most constants differ, so a prefix decides without reading it all.
    head = array.reshape(-1)[:16] if array.flags.c_contiguous else array.flat[:16]
    return bool(np.all(head == first)) and bool(np.all(array == first))


def scale_and_zero(graph: Graph, node: Node) -> tuple[Value, Value | None]:
    """The scale and the zero point of a QuantizeLinear or DequantizeLinear."""
    scale, zero = [*graph.inputs_of(node), None][1:3]
    assert scale is not None
    return scale, zero


def widens_weights(node: Node) -> bool:
    """Is it a product whose kernels widen weights of 16-bit floats in registers?

    Recurrent ones, which also give their state, take float32.
    """
    return has_trait(node, Trait.CONTRACTION) and spec_of(node).max_outputs == 1


__all__ = [
    "input_symbols", "scale_and_zero", "single_use", "sole_consumer", "splat", "symbols_bound",
    "widens_weights",
]  # fmt: skip
