"""Unrolling: a Loop with a few iterations becomes copies of its body, one for each iteration.

The number of iterations must be known, and the body must not end the loop early. Afterwards the
shapes, sequences and constants of each iteration can be resolved separately.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..ir.edit import Editor
from ..ir.graph import Graph, Node, Value
from ..ir.infer import Known
from ..ir.registry import attribute
from ..ir.types import TensorType
from .base import Pass, PassContext, register_pass
from .bodies import sizes_known
from .claims import exact
from .queries import splat


@register_pass
@dataclass(frozen=True)
class Unroll(Pass):
    """Unrolls loops of at most ``max_trips`` iterations and ``max_nodes`` operations in all."""

    max_trips: int = 16
    max_nodes: int = 512

    name = "unroll"
    claims = {
        "loops": exact("loop(n, body) = body after body, n times", "it is about control flow")
    }

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        editor = context.editor(graph)
        count = 0
        for node in graph.topological():
            if node.key != "Loop" or node not in graph:
                continue
            trips = self._trips(graph, node, editor.known)
            if isinstance(trips, int):
                _unroll(editor, node, trips)
                count += 1
            elif context.explain is not None:
                context.explain(self.name, node, trips)
        editor.finish()
        return {"loops": count}

    def _trips(self, graph: Graph, node: Node, known: Known) -> int | str:
        """The number of iterations, or why the loop is kept."""
        limit, condition = graph.input(node, 0), graph.input(node, 1)
        array = None if limit is None else known.get(limit)
        if array is None or array.dtype == object:
            return "the number of iterations is not known"
        trips = int(array.reshape(-1)[0])
        body = _body(node)
        if condition is not None and splat(condition) not in (True, 1) or not _goes_on(body):
            return "a condition may end it"
        if not 1 <= trips <= self.max_trips:
            return f"{trips} iterations"
        if trips * body.count_nodes() > self.max_nodes:
            return "the body is large"
        stacked = body.outputs[1 + int(attribute(node, "num_carried") or 0) :]
        if not all(isinstance(v.type, TensorType) and v.type.shape is not None for v in stacked):
            return "the rank of a stacked result is not known"
        inputs = [None, None, *graph.inputs_of(node)[2:]]
        inputs += [None] * (len(body.inputs) - len(inputs))
        carried = body.outputs[1 : 1 + int(attribute(node, "num_carried") or 0)]
        if not sizes_known(graph, body, inputs, carried):
            return "it needs sizes that depend on data"
        return trips


def _body(node: Node) -> Graph:
    body = node.attrs["body"]
    assert isinstance(body, Graph)
    return body


def _goes_on(body: Graph) -> bool:
    """Does the body always ask for another iteration?"""
    going = body.outputs[0]
    while going.node.key == "Identity":
        source = body.input(going.node, 0)
        assert source is not None
        going = source
    return going == body.inputs[1] or splat(going) in (True, 1)


def _unroll(editor: Editor, node: Node, trips: int) -> None:
    body = _body(node)
    carried_count = int(attribute(node, "num_carried") or 0)
    inputs = editor.graph.inputs_of(node)
    inputs += [None] * (len(body.inputs) - len(inputs))
    carried, captured = inputs[2 : 2 + carried_count], inputs[2 + carried_count :]
    rows: list[list[Value]] = []
    for iteration in range(trips):
        editor.begin("loops", node)
        first = editor.constant(np.array(iteration, np.int64), "iteration")
        going = editor.constant(np.array(True), "going")
        results = editor.inline(body, [first, going, *carried, *captured])
        carried = list(results[1 : 1 + carried_count])
        rows.append(results[1 + carried_count :])
    editor.begin("loops", node, hint=node.outputs[0].name if node.outputs else "")
    stacked = [_stack(editor, list(parts)) for parts in zip(*rows, strict=True)]
    results = [*(v for v in carried if v is not None), *stacked]
    # A loop may return fewer values than its body does.
    editor.replace_all(list(zip(node.values, results, strict=False)))
    editor.remove_unused([node])


def _stack(editor: Editor, parts: list[Value]) -> Value:
    """The values of all iterations along a new first axis."""
    rows = [editor.op("kiln.Reshape", v, shape=(1, *v.shape)) for v in parts]
    return rows[0] if len(rows) == 1 else editor.op("Concat", *rows, axis=0)
