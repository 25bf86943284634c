"""The values that bodies of control flow capture from the graph around them.

Captured values are the last inputs of the node and of its bodies (see ``ir.control``):

    If(cond, *captured)    Loop(M, cond, *carried, *captured)    Scan(*carried, *scanned, *captured)
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..ir.edit import Editor
from ..ir.graph import Graph, Node, Value
from ..ir.registry import attribute


@dataclass(frozen=True)
class Capture:
    """One captured value: the node's input ``index`` and the bodies' inputs for it."""

    index: int
    outer: Value
    inner: tuple[tuple[Graph, Value], ...]


def first_captured(node: Node) -> int | None:
    """The index of the first captured input; None for ops that capture nothing."""
    carried = int(attribute(node, "num_carried") or 0)
    if node.key == "If":
        return 1
    if node.key == "Loop":
        return 2 + carried
    if node.key == "Scan":
        return carried + int(attribute(node, "num_scan_inputs") or 0)
    return None


def captured_inputs(graph: Graph, node: Node) -> list[Capture]:
    """What ``node`` captures for its bodies, in order."""
    first = first_captured(node)
    bodies = [body for _, body in graph.bodies(node)]
    if first is None or not bodies:
        return []
    inputs = graph.inputs_of(node)
    out = []
    for index in range(first, len(inputs)):
        outer = inputs[index]
        if outer is not None:
            from_end = index - len(inputs)
            inner = tuple((body, body.inputs[from_end]) for body in bodies)
            out.append(Capture(index, outer, inner))
    return out


def drop_inputs(
    editor_of: Callable[[Graph], Editor], graph: Graph, node: Node, captures: Sequence[Capture]
) -> None:
    """Remove captured inputs that no body uses; those after them move up.

    ``editor_of`` gives the editors of ``graph`` and of the bodies.
    """
    editor = editor_of(graph)
    editor.begin("captured", node)
    gone = {c.index for c in captures}
    inputs = graph.inputs_of(node)
    kept = [v for i, v in enumerate(inputs) if i not in gone]
    for i in range(len(inputs)):
        editor.set_input(node, i, None)
    for i, v in enumerate(kept):
        editor.set_input(node, i, v)
    for c in captures:
        for body, value in c.inner:
            body_editor = editor_of(body)
            body_editor.begin("captured", node)
            body_editor.remove(value.node)


__all__ = ["Capture", "captured_inputs", "drop_inputs", "first_captured"]
