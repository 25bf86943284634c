"""Dead code elimination: of operations, constants and trailing results that are not used."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from ..ir.edit import Editor
from ..ir.graph import Graph, Node
from ..ir.registry import spec
from ..ir.symbols import carried_symbols, loose_symbols
from .base import Pass, PassContext, register_pass
from .captures import Capture, captured_inputs, drop_inputs
from .claims import exact
from .facts import NO_DEAD_NODES

_MANY = 16
"""Ops that may have more results than this are variadic: none of their results can be left out."""

_UNUSED = "what is computed stays as it is"


@register_pass
@dataclass(frozen=True)
class DeadCode(Pass):
    """Removes nodes that no result depends on, and captured values that a body does not use.

    Inputs of the model stay, since callers name them.
    """

    name = "dce"
    claims = {
        "nodes": exact("what no result needs = nothing", _UNUSED),
        "results": exact("results that nothing uses = none", _UNUSED),
    }

    ensures = (NO_DEAD_NODES,)

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        counts: Counter[str] = Counter()
        for node in graph.nodes:
            counts["captures"] += _drop_captures(context, graph, node)
        editor = context.editor(graph)
        editor.begin("nodes")
        counts["nodes"] += len(editor.remove_unused())
        for node in graph.nodes:
            counts["results"] += _drop_results(editor, node)
        return counts


def _drop_results(editor: Editor, node: Node) -> int:
    """Remove trailing results that are not used and that the op need not return."""
    found = spec(node.key)
    least = 1 if found is None else max(1, found.min_outputs)
    if len(node.outputs) <= least or found is None or found.max_outputs > _MANY:
        return 0
    dropped = 0
    while len(node.outputs) > least and not editor.graph.uses(node.out(len(node.outputs) - 1)):
        editor.drop_last_output(node)
        dropped += 1
    return dropped


def _drop_captures(context: PassContext, graph: Graph, node: Node) -> int:
    """Remove captured inputs of control flow whose value and sizes its bodies do not use."""
    captured = captured_inputs(graph, node)
    unused = [c for c in captured if all(b.nx.out_degree(v.node) == 0 for b, v in c.inner)]
    if unused:
        unused = _without_carriers(graph, node, unused)
        drop_inputs(context.editor, graph, node, unused)
    return len(unused)


def _without_carriers(graph: Graph, node: Node, unused: list[Capture]) -> list[Capture]:
    """Those of ``unused`` that may go: not the only ones whose type has a size that bodies use."""
    dropped_inputs = {v for c in unused for _, v in c.inner}
    missing: set[str] = set()
    for _, body in graph.bodies(node):
        kept = [v for v in body.inputs if v not in dropped_inputs]
        missing |= loose_symbols(body) - carried_symbols(kept)
    missing -= carried_symbols(graph.inputs)
    dropped = []
    for c in unused:
        carried = carried_symbols(v for _, v in c.inner)
        if not carried & missing:
            dropped.append(c)
        missing -= carried
    return dropped
