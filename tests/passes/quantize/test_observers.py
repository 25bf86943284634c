"""What runs show of tensors: counts and extremes, accumulated over samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
from support.graph_text import graph_of

from graphkiln.errors import InputError
from graphkiln.ir.graph import Graph, GraphError, Value
from graphkiln.ir.magnitudes import BINS, bins_of
from graphkiln.passes.quantize.observers import observe, observed_graph
from graphkiln.passes.services import reference_runner

NET = """graph main(%x: float32[?N,4], %i: int64[]) -> (o) {
%r = Relu(%x)
%s = Softmax(%r) {axis=1}
return %s
}""".replace("?N", "N")


def values(graph: Graph, *names: str) -> list[Value]:
    found = {v.name: v for node in graph.nx for v in node.values}
    return [found[name] for name in names]


def samples(count: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(count)
    return [
        {"x": rng.standard_normal((n + 1, 4)).astype(np.float32), "i": np.array(n)}
        for n in range(count)
    ]


def test_counts_and_extremes_of_all_samples() -> None:
    graph, data = graph_of(NET), samples(5)
    before = str(graph.count_nodes())
    found = observe(graph, values(graph, "x", "r"), data, reference_runner)
    assert str(graph.count_nodes()) == before
    everything = np.concatenate([s["x"] for s in data])
    for name, array in (("x", everything), ("r", np.maximum(everything, 0))):
        seen = found[name]
        assert (seen.low, seen.high, seen.runs) == (array.min(), array.max(), 5)
        np.testing.assert_array_equal(
            seen.counts, np.bincount(bins_of(array).reshape(-1), minlength=BINS)
        )


def test_nothing_else_is_computed() -> None:
    graph = graph_of(NET)
    observed = observed_graph(graph, values(graph, "r"))
    assert [n.key for n in observed.topological()].count("kiln.Observe") == 1
    assert not any(n.key == "Softmax" for n in observed.nodes)
    assert [v.name for v in observed.inputs] == ["x", "i", "counted"]


def test_the_switch_has_a_name_of_its_own() -> None:
    text = NET.replace("%i: int64[]", "%counted: int64[]")
    graph = graph_of(text)
    data = [{"x": s["x"], "counted": s["i"]} for s in samples(2)]
    found = observe(graph, values(graph, "x"), data, reference_runner)
    assert found["x"].total == sum(s["x"].size for s in data)


def test_some_samples_are_counted_and_all_have_extremes() -> None:
    graph, data = graph_of(NET), samples(40)
    seen = observe(graph, values(graph, "x"), data, reference_runner, every=8)["x"]
    counted = np.concatenate([s["x"] for i, s in enumerate(data) if i < 16 or i % 8 == 0])
    everything = np.concatenate([s["x"] for s in data])
    np.testing.assert_array_equal(
        seen.counts, np.bincount(bins_of(counted).reshape(-1), minlength=BINS)
    )
    assert (seen.low, seen.high, seen.runs) == (everything.min(), everything.max(), 40)


def test_samples_are_taken_one_by_one() -> None:
    """No sample is asked for before the one in front of it has run."""
    asked: list[int] = []
    ran: list[int] = []

    def data() -> Iterator[Mapping[str, Any]]:
        for i, sample in enumerate(samples(4)):
            assert len(ran) == i
            asked.append(i)
            yield sample

    def runner(graph: Graph) -> Callable[[Mapping[str, Any]], list[Any]]:
        run = reference_runner(graph)

        def counted(feeds: Mapping[str, Any]) -> list[Any]:
            ran.append(len(asked))
            return run(feeds)

        return counted

    graph = graph_of(NET)
    observe(graph, values(graph, "x"), data(), runner)
    assert ran == [1, 2, 3, 4]


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_infinity_and_nan_are_refused(bad: float) -> None:
    graph, data = graph_of(NET), samples(3)
    data[1]["x"][1, 2] = bad
    with pytest.raises(
        GraphError, match=r"tensor 'x' cannot be quantized: it holds .* in sample 1"
    ):
        observe(graph, values(graph, "x"), data, reference_runner)


def test_no_samples_are_an_error() -> None:
    graph = graph_of(NET)
    with pytest.raises(GraphError, match="no calibration data"):
        observe(graph, values(graph, "x"), [], reference_runner)


def test_a_sample_that_does_not_fit_is_named() -> None:
    def runner(_: Graph) -> Callable[[Mapping[str, Any]], list[Any]]:
        def run(feeds: Mapping[str, Any]) -> list[Any]:
            raise InputError("input 'x' has another shape")

        return run

    graph = graph_of(NET)
    with pytest.raises(
        GraphError, match="sample 0 of the data does not fit: input 'x' has another"
    ):
        observe(graph, values(graph, "x"), samples(1), runner)
