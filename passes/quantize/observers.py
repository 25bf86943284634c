"""Runs a graph on sample data, and keeps what is seen of some of its tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from typing import Any

import numpy as np

from ...ir.edit import Editor
from ...ir.graph import Graph, GraphError, Value
from ..services import Feeds, Journal, NoJournal, Runner
from .histogram import Histogram
from .measure import measuring, reduced, run_sample

_SEEN = "seen"
"""The journal's name of what runs have shown so far."""


def observed_graph(graph: Graph, values: Sequence[Value]) -> Graph:
    """A copy of ``graph`` that gives counts and extremes of ``values``, three results for each."""
    names = [v.name for v in values]

    def measure(editor: Editor) -> list[Value]:
        found = {v.name: v for node in editor.graph.nx for v in node.values}
        outputs = []
        for name in names:
            x = found[name]
            outputs.append(editor.op("kiln.CountMagnitudes", x))
            outputs.append(reduced(editor, "ReduceMin", x))
            outputs.append(reduced(editor, "ReduceMax", x))
        return outputs

    return measuring(graph, measure)


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
    names = [v.name for v in values]
    run = runner(observed_graph(graph, values))
    inputs = {v.name for v in graph.inputs}
    count, found = _kept(journal, names)
    for feeds in islice(data, count, None):
        results = run_sample(run, feeds, inputs, count)
        for i, name in enumerate(names):
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


__all__ = ["observe", "observed_graph"]
