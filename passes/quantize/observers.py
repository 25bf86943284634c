"""Runs a graph on sample data, and keeps what is seen of some of its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Graph, GraphError, Value
from ...ir.types import tensor
from ..services import Feeds, Journal, NoJournal, Runner
from .histogram import Histogram
from .measure import measuring, run_sample

_SEEN = "seen"
"""The journal's name of what runs have shown so far."""
_FIRST = 16
"""Samples at the start that are always counted."""


def observed_graph(graph: Graph, values: Sequence[Value]) -> Graph:
    """A copy of ``graph`` that gives counts and extremes of ``values``, three results for each.

    Its last input is one more than those of ``graph``: a bool scalar that says whether to count.
    """
    names = [v.name for v in values]

    def measure(editor: Editor) -> list[Value]:
        found = {v.name: v for node in editor.graph.nx for v in node.values}
        counted = editor.input("counted", tensor("bool"))
        observers = [
            editor.node("Observe", [found[name], counted], domain="kiln", outputs=3)
            for name in names
        ]
        return [seen for observer in observers for seen in observer.values]

    return measuring(graph, measure)


def observe(
    graph: Graph, values: Sequence[Value], data: Iterable[Feeds], runner: Runner,
    journal: Journal | None = None, every: int = 1,
) -> dict[str, Histogram]:  # fmt: skip
    """What the runs on ``data`` show of each value, by name.

    Numbers are counted in the first samples and in every ``every``-th one; extremes are those of
    all samples. Memory does not grow with the number of samples. What the ``journal`` has of an
    earlier call, which was stopped, is not done again. Raises :class:`.GraphError` that names the
    value and the sample where one holds infinity or NaN, and where there are no samples.
    """
    journal = journal or NoJournal()
    names = [v.name for v in values]
    observed = observed_graph(graph, values)
    run, switch = runner(observed), observed.inputs[-1].name
    inputs = {v.name for v in observed.inputs}
    count, found = _kept(journal, names)
    for feeds in islice(data, count, None):
        counted = np.array(count < _FIRST or count % every == 0)
        results = run_sample(run, {**feeds, switch: counted}, inputs, count)
        _add(found, results, count)
        count += 1
        if journal.is_due():
            journal.save(_SEEN, _entry(count, found))
    if not count:
        raise GraphError("there is no calibration data")
    journal.save(_SEEN, _entry(count, found))
    return found


def _add(found: Mapping[str, Histogram], results: Sequence[Any], number: int) -> None:
    """Add the results of an observed graph for a sample."""
    for i, (name, seen) in enumerate(found.items()):
        counts, low, high = results[3 * i : 3 * i + 3]
        try:
            seen.add(np.asarray(counts), float(low), float(high))
        except ValueError as e:
            told = f"tensor {name!r} cannot be quantized: {e} in sample {number}"
            raise GraphError(told) from e


def _kept(journal: Journal, names: Sequence[str]) -> tuple[int, dict[str, Histogram]]:
    """How many samples were seen before, and what they showed."""
    held = journal.load(_SEEN)
    if held is None or list(held["seen"]) != list(names):
        return 0, {name: Histogram() for name in names}
    return held["samples"], {n: Histogram.from_json(h) for n, h in held["seen"].items()}


def _entry(count: int, found: Mapping[str, Histogram]) -> dict[str, Any]:
    return {"samples": count, "seen": {name: seen.to_json() for name, seen in found.items()}}


__all__ = ["observe", "observed_graph"]
