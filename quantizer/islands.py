"""Float islands: what a compiled model computes in floats between two quantized layers.

A layer is quantized if its kernel multiplies 8-bit integers. What that kernel does with its sums in
floats stays in registers; an island is a kernel of its own, whose floats go through memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from ..ir.graph import Graph, Node, Value
from ..ir.registry import OPSET, has_trait
from ..ir.traits import Trait
from ..ir.types import BYTES, TensorType

if TYPE_CHECKING:
    from ..passes.base import Row

_BYTE = "tensor(int8)"


def float_islands(graph: Graph, layers: Iterable[Row]) -> list[Row]:
    """A row for each island of a compiled graph: its ops, the ONNX nodes behind it, and why it
    computes floats. ``layers`` are the report's rows of layers.
    """
    order = list(graph.topological())
    parts = {node: _parts(graph, node) for node in order}
    quantized = {n for n, (g, ops) in parts.items() if any(_multiplies_bytes(g, o) for o in ops)}
    behind, before = _reached(graph, order, quantized), _reaching(graph, order, quantized)
    reasons = {name: row["reason"] for row in layers if row["reason"] for name in row["onnx"]}
    found: list[Row] = []
    for node in order:
        inner, ops = parts[node]
        floats = [op for op in ops if _touches_floats(inner, op)]
        if floats and node in behind and node in before and node not in quantized:
            names = list(node.origins.names)
            told = [reasons[name] for name in names if name in reasons]
            found.append(
                {
                    "ops": list(dict.fromkeys(op.key for op in floats)),
                    "onnx": names,
                    "reason": _reason(inner, floats, told),
                }
            )
    return found


def _parts(graph: Graph, node: Node) -> tuple[Graph, list[Node]]:
    """The graph with the ops of a kernel, and these."""
    body = node.attrs.get("body")
    if node.key == "kiln.Region" and isinstance(body, Graph):
        return body, list(body.topological())
    return graph, [node]


def _reached(graph: Graph, order: Sequence[Node], start: set[Node]) -> set[Node]:
    """What reads a result of ``start``, directly or not; ``order`` is topological."""
    found: set[Node] = set()
    for node in order:
        sources = {v.node for v in graph.inputs_of(node) if v is not None}
        if sources & start or sources & found:
            found.add(node)
    return found


def _reaching(graph: Graph, order: Sequence[Node], goal: set[Node]) -> set[Node]:
    """What ``goal`` reads, directly or not."""
    found: set[Node] = set()
    for node in reversed(order):
        readers = {reader for v in node.values for reader, _ in graph.uses(v)}
        if readers & goal or readers & found:
            found.add(node)
    return found


def _multiplies_bytes(graph: Graph, node: Node) -> bool:
    first = _first(graph, node)
    return has_trait(node, Trait.CONTRACTION) and first is not None and first.dtype in BYTES


def _touches_floats(graph: Graph, node: Node) -> bool:
    """Does a node read or give floats, rather than only name their memory in another way?

    Only the first input counts: others may be the scales of integers.
    """
    first = _first(graph, node)
    values = [*node.values, *([] if first is None else [first])]
    return any(_is_float(v) for v in values) and not has_trait(node, Trait.VIEW)


def _first(graph: Graph, node: Node) -> Value | None:
    found = next(iter(graph.inputs_of(node)), None)
    return found if found is not None and isinstance(found.type, TensorType) else None


def _is_float(value: Value) -> bool:
    return isinstance(value.type, TensorType) and value.type.dtype.is_float


def _reason(graph: Graph, floats: Sequence[Node], told: Sequence[str]) -> str:
    """Why a kernel computes floats: ``told`` are reasons of layers in it."""
    if told:
        return told[0]
    for node in floats:
        if _takes_no_bytes(node):
            return f"{node.op} takes no 8-bit integers"
    computed = [n for n in floats if _is_float(n.out()) and _reads_floats(graph, n)]
    if not computed:
        return "it converts what another kernel has stored"
    return f"no rule gives {computed[0].op} an integer form here"


def _reads_floats(graph: Graph, node: Node) -> bool:
    first = _first(graph, node)
    return first is not None and _is_float(first)


def _takes_no_bytes(node: Node) -> bool:
    """Does the standard allow no 8-bit integers as the first input of an op?"""
    import onnx.defs

    if node.domain or not onnx.defs.has(node.op, OPSET, node.domain):
        return False
    inputs = onnx.defs.get_schema(node.op, OPSET, node.domain).inputs
    takes_result = _is_float(node.out())
    return takes_result and bool(inputs) and _BYTE not in inputs[0].types


__all__ = ["float_islands"]
