"""Runs passes over graphs given as text: golden text, and the same numbers before and after."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphkiln.ir.dims import evaluate as dim_value
from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.text import print_graph
from graphkiln.ir.types import TensorType, to_numpy_dtype, type_symbols
from graphkiln.passes.base import PassContext
from graphkiln.passes.manager import PassManager, PipelineResult
from graphkiln.passes.pipeline import parse_pipeline

from .graph_text import graph_of

Golden = Callable[[str, str], None]


def run(graph: Graph, pipeline: str, context: PassContext | None = None) -> PipelineResult:
    """Run a pipeline, verifying after each pass."""
    return PassManager(parse_pipeline(pipeline)).run(graph, context)


def check(
    golden: Golden,
    name: str,
    text: str,
    pipeline: str,
    *,
    sizes: Mapping[str, int] | None = None,
    feeds: Mapping[str, Any] | None = None,
    constants: Mapping[str, np.ndarray] | None = None,
    context: PassContext | None = None,
    rtol: float = 1e-4,
) -> PipelineResult:
    """The passes give the golden text, and the same numbers for random inputs.

    ``sizes`` are values of symbols (default: 2, 3, 4 ... by name); ``feeds`` replace random inputs;
    ``constants`` hold by hash the arrays that the text does not spell out.
    """
    graph = graph_of(text, constants)
    given = {**random_feeds(graph, sizes), **(feeds or {})}
    expected = evaluate(graph, given)
    result = run(graph, pipeline, context)
    golden(name, print_graph(graph))
    same(evaluate(graph, given), expected, rtol)
    return result


def same(actual: list[Any], expected: list[Any], rtol: float = 1e-4) -> None:
    """Assert that two lists of results agree in type and value."""
    assert len(actual) == len(expected)
    for a, b in zip(actual, expected, strict=True):
        if isinstance(b, list):
            same(a, b, rtol)
        elif b is None or b.dtype == object:
            assert np.array_equal(a, b)
        else:
            assert a.dtype == b.dtype
            assert a.shape == b.shape
            np.testing.assert_allclose(
                a.astype(np.float64), b.astype(np.float64), rtol=rtol, atol=rtol * 1e-1
            )


def random_feeds(graph: Graph, sizes: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Random arrays for the graph's inputs."""
    rng = np.random.default_rng(7)
    symbols = sorted(frozenset().union(*(type_symbols(v.type) for v in graph.inputs)))
    bindings = {s: i for i, s in enumerate(symbols, 2)} | dict(sizes or {})
    return {v.name: random_array(rng, v.tensor_type, bindings) for v in graph.inputs}


def random_array(rng: np.random.Generator, t: TensorType, bindings: Mapping[str, int]) -> Any:
    """A random array of type ``t``."""
    shape = tuple(dim_value(d, bindings) for d in t.dims)
    kind = to_numpy_dtype(t.dtype)
    if t.dtype.kind == "b":
        return rng.integers(0, 2, shape).astype(bool)
    if t.dtype.is_integer:
        low = 0 if t.dtype.kind == "u" else -4
        return rng.integers(low, 5, shape).astype(kind)
    return rng.normal(size=shape).astype(kind)
