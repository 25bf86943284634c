"""Hypothesis strategies: well-typed graphs of common ops, and inputs for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from graphkiln.ir.dims import Dim, sym
from graphkiln.ir.graph import Graph, Value
from graphkiln.ir.infer import infer_types
from graphkiln.ir.types import TensorType, dtype

_UNARY = ["Relu", "Neg", "Abs", "Sigmoid", "Tanh", "Identity", "Floor"]
_BINARY = ["Add", "Sub", "Mul", "Max", "Min"]


@st.composite
def typed_graphs(draw: st.DrawFn, max_nodes: int = 8) -> Graph:
    """A float32 graph with one or two inputs whose first dim may be the symbol ``N``.

    All values are finite for inputs in [-2, 2]; every value has its type.
    """
    graph = Graph("main")
    values: list[Value] = []
    first: Dim = sym("N") if draw(st.booleans()) else draw(st.integers(1, 3))
    for i in range(draw(st.integers(1, 2))):
        rest = draw(st.lists(st.integers(1, 4), max_size=2))
        values.append(graph.add_input(f"x{i}", TensorType(dtype("float32"), (first, *rest))))
    for _ in range(draw(st.integers(1, max_nodes))):
        step = draw(st.sampled_from(_STEPS))
        values.append(step(draw, graph, values))
        infer_types(graph)
    outputs = draw(st.lists(st.sampled_from(values), min_size=1, max_size=3))
    graph.set_outputs(outputs, [f"y{i}" for i in range(len(outputs))])
    return graph


@st.composite
def feeds_of(draw: st.DrawFn, graph: Graph) -> dict[str, np.ndarray]:
    """Inputs in [-2, 2] for a graph of :func:`typed_graphs`."""
    n = draw(st.integers(1, 4))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = {v.name: [d if isinstance(d, int) else n for d in v.shape] for v in graph.inputs}
    return {k: random.uniform(-2, 2, s).astype(np.float32) for k, s in shapes.items()}


def _unary(draw: st.DrawFn, graph: Graph, values: list[Value]) -> Value:
    return graph.add_node(draw(st.sampled_from(_UNARY)), [draw(st.sampled_from(values))]).out()


def _binary(draw: st.DrawFn, graph: Graph, values: list[Value]) -> Value:
    a = draw(st.sampled_from(values))
    others = [v for v in values if v.shape == a.shape]
    scalar = graph.add_constant(np.array(draw(st.sampled_from([0.0, 0.5, 1.0, -1.5])), np.float32))
    b = draw(st.sampled_from([*others, scalar]))
    operands = [a, b] if draw(st.booleans()) else [b, a]
    # Tanh keeps products of products in range.
    return graph.add_node("Tanh", [graph.add_node(_pick(draw, _BINARY), operands).out()]).out()


def _pick(draw: st.DrawFn, names: list[str]) -> str:
    return draw(st.sampled_from(names))


def _transpose(draw: st.DrawFn, graph: Graph, values: list[Value]) -> Value:
    x = draw(st.sampled_from(values))
    order = tuple(draw(st.permutations(range(x.rank))))
    return graph.add_node("Transpose", [x], {"perm": order}).out()


def _concat(draw: st.DrawFn, graph: Graph, values: list[Value]) -> Value:
    x = draw(st.sampled_from(values))
    axis = draw(st.integers(0, x.rank - 1))
    return graph.add_node("Concat", [x] * draw(st.integers(1, 2)), {"axis": axis}).out()


def _flatten(draw: st.DrawFn, graph: Graph, values: list[Value]) -> Value:
    x = draw(st.sampled_from(values))
    return graph.add_node("Flatten", [x], {"axis": draw(st.integers(0, x.rank))}).out()


def _reshape(draw: st.DrawFn, graph: Graph, values: list[Value]) -> Value:
    x = draw(st.sampled_from(values))
    shape = graph.add_node("Shape", [x]).out()
    extra = graph.add_constant(np.array([1], np.int64))
    target = graph.add_node("Concat", [extra, shape], {"axis": 0}).out()
    return graph.add_node("Reshape", [x, target]).out()


def _unsqueeze(draw: st.DrawFn, graph: Graph, values: list[Value]) -> Value:
    x = draw(st.sampled_from(values))
    axes = graph.add_constant(np.array([draw(st.integers(0, x.rank))], np.int64))
    return graph.add_node("Unsqueeze", [x, axes]).out()


def _mean(draw: st.DrawFn, graph: Graph, values: list[Value]) -> Value:
    x = draw(st.sampled_from(values))
    axes = graph.add_constant(np.array([draw(st.integers(0, x.rank - 1))], np.int64))
    return graph.add_node("ReduceMean", [x, axes], {"keepdims": 1}).out()


_STEPS: list[Callable[[st.DrawFn, Graph, list[Value]], Value]] = [
    _unary, _binary, _transpose, _concat, _flatten, _reshape, _unsqueeze, _mean,
]  # fmt: skip
