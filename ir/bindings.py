"""Bindings: the values of symbols in one run, from the shapes of actual arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .dims import Dim, DimError, SymExpr, evaluate, free_symbols, solve, substitute
from .graph import Graph, Node
from .types import OptionalType, Shape, TensorType, Type, from_numpy_dtype

Bindings = dict[str, int]


def bind_type(t: Type | None, value: Any, bindings: Bindings) -> None:
    """Add the symbols of ``t`` that ``value``'s shape determines and that have no value yet."""
    if isinstance(t, OptionalType):
        t = t.elem
    if isinstance(t, TensorType) and t.shape is not None and isinstance(value, np.ndarray):
        bind_shape(t.shape, value.shape, bindings)


def bind_shape(dims: Shape, sizes: Sequence[int], bindings: Bindings) -> None:
    """Add the symbols of ``dims`` that the sizes of a run determine and that have no value yet."""
    pairs = [(d, n) for d, n in zip(dims, sizes, strict=False) if isinstance(d, SymExpr)]
    # Bare symbols come first, so that 2*N is solved for N only if no dim is N itself.
    pairs.sort(key=lambda pair: len(str(pair[0])))
    for d, extent in pairs:
        unknown = [s for s in free_symbols(d) if s not in bindings]
        if len(unknown) == 1:
            size = solve(substitute(d, bindings), extent, unknown[0])
            if size is not None:
                bindings[unknown[0]] = size


def mismatch(t: Type | None, value: Any, bindings: Mapping[str, int]) -> str | None:
    """Why ``value`` is not of type ``t`` under ``bindings``, or None if it may be."""
    if isinstance(t, OptionalType):
        return None if value is None else mismatch(t.elem, value, bindings)
    if not isinstance(t, TensorType):
        return None
    if not isinstance(value, np.ndarray):
        return f"expected {t}, got a {type(value).__name__}"
    actual = from_numpy_dtype(value.dtype)
    if actual != t.dtype:
        return f"expected element type {t.dtype}, got {actual}"
    if t.shape is None:
        return None
    if len(t.shape) != value.ndim:
        return f"expected {t}, got shape {list(value.shape)}"
    for d, extent in zip(t.shape, value.shape, strict=True):
        expected = known_extent(d, bindings)
        if expected is not None and expected != extent:
            return f"expected {t}, got shape {list(value.shape)}" + _explain(d, expected)
    return None


def _explain(d: Dim, expected: int) -> str:
    return "" if isinstance(d, int) else f" where {d} is {expected}"


def known_extent(d: Dim, bindings: Mapping[str, int]) -> int | None:
    """The value of a dim, or None if a symbol has no value."""
    try:
        return evaluate(d, bindings)
    except DimError:
        return None


# ---- symbolic attributes -------------------------------------------------------------------------


def has_symbols(node: Node) -> bool:
    """True where an attribute (not inside a body) holds a symbolic dim."""
    return any(True for _ in _symbolic(tuple(node.attrs.values())))


def attribute_symbols(node: Node) -> frozenset[str]:
    """The symbols in the attributes (not inside of bodies) of a node."""
    dims = _symbolic(tuple(node.attrs.values()))
    return frozenset().union(*(free_symbols(d) for d in dims))


def _symbolic(value: Any) -> Iterator[SymExpr]:
    if isinstance(value, SymExpr):
        yield value
    elif isinstance(value, tuple | list):
        for item in value:
            yield from _symbolic(item)


def concrete(node: Node, bindings: Mapping[str, int]) -> Node:
    """A copy of ``node``, outside of any graph, whose symbolic attributes are ints.

    Raises :class:`DimError` if a symbol has no value.
    """
    attrs = {k: _evaluated(v, bindings) for k, v in node.attrs.items()}
    return Node(node.op, node.domain, node.name, attrs, node.outputs, node.serial)


def _evaluated(value: Any, bindings: Mapping[str, int]) -> Any:
    if isinstance(value, SymExpr):
        return evaluate(value, bindings)
    if isinstance(value, tuple | list) and any(True for _ in _symbolic(value)):
        return tuple(_evaluated(v, bindings) for v in value)
    return value


def bind_inputs(graph: Graph, values: list[Any], outer: Mapping[str, int]) -> Bindings:
    """The bindings in a body: those of its inputs' shapes, then those of the graph around it.

    The inputs come first, since a loop may change a size from iteration to iteration.
    """
    own: Bindings = {}
    for v, value in zip(graph.inputs, values, strict=True):
        bind_type(v.node.outputs[v.index].type, value, own)
    return {**outer, **own}
