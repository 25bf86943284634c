"""What must hold of any well-typed graph: it verifies, prints, evaluates and exports."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from support.typed_graphs import feeds_of, typed_graphs

from graphkiln.frontend.export import to_onnx
from graphkiln.ir.compare import structurally_equal
from graphkiln.ir.graph import Graph
from graphkiln.ir.infer import infer_types
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.parser import parse_graph
from graphkiln.ir.text import print_graph
from graphkiln.ir.verify import verify


@settings(max_examples=60)
@given(typed_graphs())
def test_graphs_verify_print_and_copy(graph: Graph) -> None:
    verify(graph)
    text = print_graph(graph)
    for twin in (parse_graph(text), graph.copy()):
        assert structurally_equal(graph, twin) is None
        infer_types(twin)
        verify(twin)
        assert print_graph(twin) == text


@settings(max_examples=60)
@given(st.data())
def test_values_are_of_their_inferred_types(data: st.DataObject) -> None:
    graph = data.draw(typed_graphs())
    feeds = data.draw(feeds_of(graph))
    results = evaluate(graph, feeds, check_types=True)
    again = evaluate(parse_graph(print_graph(graph)), feeds)
    for a, b in zip(results, again, strict=True):
        np.testing.assert_array_equal(a, b)


@settings(max_examples=40)
@given(st.data())
def test_exported_graphs_compute_the_same(data: st.DataObject) -> None:
    graph = data.draw(typed_graphs())
    feeds = data.draw(feeds_of(graph))
    results = ReferenceEvaluator(to_onnx(graph)).run(None, feeds)
    for a, b in zip(results, evaluate(graph, feeds), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
