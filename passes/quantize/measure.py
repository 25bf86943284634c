"""Graphs of measurements: a copy of a graph whose results are what is to be seen of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np

from ...errors import GraphkilnError
from ...ir.edit import Editor
from ...ir.graph import Graph, GraphError, Value
from ...ir.infer import infer_types
from ..base import PassContext
from ..services import Feeds

Measure: TypeAlias = "Callable[[Editor], Sequence[Value]]"
"""Adds to the editor's graph what is to be seen, and gives it."""


def measuring(graph: Graph, measure: Measure) -> Graph:
    """A copy of ``graph`` that computes what ``measure`` gives, in order, and nothing else."""
    copy = graph.copy()
    editor = Editor(copy, infer_types(copy))
    editor.begin("measure")
    results = list(measure(editor))
    copy.set_outputs(results, [f"measure_{i}" for i in range(len(results))])
    editor.remove_unused()
    return copy


def values_by_name(graph: Graph) -> dict[str, Value]:
    """All values of a graph: a copy has those of the same names."""
    return {v.name: v for node in graph.nx for v in node.values}


def measured(graph: Graph, measure: Measure, context: PassContext) -> Iterator[list[Any]]:
    """What ``measure`` gives of each sample of the context's data, in order."""
    run = context.runner(measuring(graph, measure))
    inputs = {v.name for v in graph.inputs}
    for number, sample in enumerate(context.data):
        yield run_sample(run, sample, inputs, number)


def reduced(editor: Editor, op: str, x: Value, axes: Sequence[int] = ()) -> Value:
    """``x`` reduced by ``op`` over some axes (default: all) without keeping them."""
    given = editor.constant(np.array(axes, np.int64))
    return editor.op(op, x, given, keepdims=0)


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


__all__ = ["Measure", "measured", "measuring", "reduced", "run_sample", "values_by_name"]
