"""Moves a set of nodes into the body of a ``kiln.Region``."""

from __future__ import annotations

from collections.abc import Sequence

from ...ir.clone import clone_node
from ...ir.constant_inlining import is_inlinable
from ...ir.edit import Editor
from ...ir.graph import Graph, Node, Value


def outline(editor: Editor, members: Sequence[Node]) -> Node:
    """Replace ``members`` (producers first) by one region node, which is returned."""
    graph = editor.graph
    body = Graph("region")
    inputs: list[Value] = []
    mapping: dict[Value, Value] = {}
    for node in members:
        for v in graph.inputs_of(node):
            if v is not None and v not in mapping:
                mapping[v] = _bring(graph, members, body, v, inputs)
        mapped = [None if v is None else mapping[v] for v in graph.inputs_of(node)]
        copy = clone_node(node, body, mapped)
        mapping.update(zip(node.values, copy.values, strict=True))
    results = _leaving(graph, members)
    body.set_outputs([mapping[v] for v in results], [v.name for v in results])
    return _replace(editor, members, inputs, results, body)


def _bring(
    graph: Graph, members: Sequence[Node], body: Graph, value: Value, inputs: list[Value]
) -> Value:
    """A value from outside as a constant of the body if it is a small one, else as a new input."""
    array = value.constant
    if array is not None and is_inlinable(array, _uses(graph, value, members)):
        return body.add_constant(array, value.name)
    inputs.append(value)
    return body.add_input(value.name, value.type)


def _uses(graph: Graph, value: Value, members: Sequence[Node]) -> list[tuple[Node, int]]:
    """The uses of ``value`` by ``members``."""
    inside = set(members)
    return [(n, i) for n, i in graph.uses(value) if n in inside]


def _leaving(graph: Graph, members: Sequence[Node]) -> list[Value]:
    """The values of ``members`` that are used outside."""
    inside = set(members)
    return [v for n in members for v in n.values if any(c not in inside for c, _ in graph.uses(v))]


def _replace(
    editor: Editor,
    members: Sequence[Node],
    inputs: Sequence[Value],
    results: Sequence[Value],
    body: Graph,
) -> Node:
    """Put a region node in the place of ``members``; its results take over their names."""
    names = [v.name for v in results]
    editor.begin("regions", *members)
    region = editor.node(
        "Region", inputs, {"body": body}, outputs=names, types=[v.type for v in results],
        domain="kiln", name=members[-1].name,
    )  # fmt: skip
    for old, new in zip(results, region.values, strict=True):
        editor.replace_uses(old, new)
    editor.remove_unused(reversed(members))
    for new, name in zip(region.values, names, strict=True):
        editor.graph.rename(new, name)
    return region


__all__ = ["outline"]
