"""Runs a graph on sample data, and keeps what is seen of some of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from ...errors import GraphkilnError
from ...ir.graph import Graph, GraphError, Value
from ...ir.infer import infer_types
from ..services import Feeds, Journal, NoJournal, Runner
from .histogram import Histogram

_SEEN = "seen"
"""The journal's name of what runs have shown so far."""


@dataclass
class Observed:
    """A graph whose results are counts and extremes of ``names``, three for each."""

    graph: Graph
    names: list[str] = field(default_factory=list)


def observed_graph(graph: Graph, values: Sequence[Value]) -> Observed:
    """A copy of ``graph`` that computes nothing but what is to be seen of ``values``."""
    copy = graph.copy()
    found = {v.name: v for node in copy.nx for v in node.values}
    axes = copy.add_constant(np.zeros(0, np.int64), "axes")
    outputs: list[Value] = []
    for value in values:
        x = found[value.name]
        counts = copy.add_node("CountMagnitudes", [x], {}, domain="kiln")
        least, most = (
            copy.add_node(op, [x, axes], {"keepdims": 0}) for op in ("ReduceMin", "ReduceMax")
        )
        outputs += [counts.out(), least.out(), most.out()]
    copy.set_outputs(outputs, [f"seen_{i}" for i in range(len(outputs))])
    copy.prune()
    infer_types(copy)
    return Observed(copy, [v.name for v in values])


def run_sample(
    run: Callable[[Feeds], list[Any]], sample: Feeds, inputs: Collection[str], number: int
) -> list[Any]:
    """The results of a run on a sample, which may hold other arrays besides those of the inputs.

    Raises :class:`.GraphError` with the sample's number where it does not fit.
    """
    try:
        return run({name: array for name, array in sample.items() if name in inputs})
    except GraphkilnError as e:
        raise GraphError(f"sample {number} of the data does not fit: {e.reason}") from e


def observe(
    graph: Graph, values: Sequence[Value], data: Iterable[Feeds], runner: Runner,
    journal: Journal | None = None,
) -> dict[str, Histogram]:  # fmt: skip
    """What the runs on ``data`` show of each value, by name.

    Memory does not grow with the number of samples. What the ``journal`` has of an earlier call,
    which was stopped, is not done again. Raises :class:`.GraphError` that names the value and the
    sample where one holds infinity or NaN, and where there are no samples.
    """
    journal = journal or NoJournal()
    observed = observed_graph(graph, values)
    run = runner(observed.graph)
    inputs = {v.name for v in graph.inputs}
    count, found = _kept(journal, observed.names)
    for feeds in islice(data, count, None):
        results = run_sample(run, feeds, inputs, count)
        for i, name in enumerate(observed.names):
            counts, low, high = results[3 * i : 3 * i + 3]
            try:
                found[name].add(np.asarray(counts), float(low), float(high))
            except ValueError as e:
                told = f"tensor {name!r} cannot be quantized: {e} in sample {count}"
                raise GraphError(told) from e
        count += 1
        journal.save(_SEEN, _entry(count, found), final=False)
    if not count:
        raise GraphError("there is no calibration data")
    journal.save(_SEEN, _entry(count, found))
    return found


def _kept(journal: Journal, names: Sequence[str]) -> tuple[int, dict[str, Histogram]]:
    """How many samples were seen before, and what they showed."""
    held = journal.load(_SEEN)
    if held is None or list(held["seen"]) != list(names):
        return 0, {name: Histogram() for name in names}
    return held["samples"], {n: Histogram.from_json(h) for n, h in held["seen"].items()}


def _entry(count: int, found: Mapping[str, Histogram]) -> dict[str, Any]:
    return {"samples": count, "seen": {name: seen.to_json() for name, seen in found.items()}}


__all__ = ["observe", "observed_graph", "run_sample"]
