"""Chains of element-wise ops from one 8-bit tensor to another become tables.

    f(g(x)) = table[x]     table[i] = f(g(i)) for all 256 values i of x

In a model that is quantized everywhere, activations such as HardSwish are chains of a dozen ops
with a QuantizeLinear and a DequantizeLinear between any two. All that such a chain depends on is
one byte, so it is evaluated here, by the interpreter, for every byte that there is. A chain may
branch and join again, as in ``x * sigmoid(x)``.

A chain starts at the first 8-bit tensor, or at one that other ops read anyway: it is in registers
or in memory there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..ir.edit import Editor
from ..ir.elementwise import is_elementwise
from ..ir.graph import Graph, GraphError, Node, Value
from ..ir.interpreter import run_node
from ..ir.ops.byte_table import SIZE
from ..ir.registry import has_trait
from ..ir.traits import Trait
from ..ir.types import BYTES, TensorType
from .base import Pass, PassContext, register_pass
from .claims import Family, rounds


@register_pass
@dataclass(frozen=True)
class Tabulate(Pass):
    """Replaces chains of element-wise ops between 8-bit tensors by tables of 256 results."""

    name = "tabulate"
    claims = {
        "tables": rounds(
            "f(x) = table[x], x and f(x) 8-bit integers",
            "one step of the result, where a function in f rounds in its own way",
            Family.ELEMENTWISE,
        )
    }

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        editor = context.editor(graph)
        found = _Chains(graph)
        ends = found.ends()
        for node in ends:
            editor.begin("tables", *found.nodes_of(node))
            _replace(editor, found, node)
        editor.finish()
        return {"tables": len(ends)}


def _replace(editor: Editor, chains: _Chains, node: Node) -> None:
    link = chains.links[node]
    table = editor.constant(link.results, f"{node.out().name}_table")
    mapped = editor.node("MapBytes", [link.start, table], domain="kiln")
    editor.replace(node.out(), mapped.out())


@dataclass(frozen=True)
class _Link:
    """A node of a chain: where that starts, and the node's results for each byte of the start."""

    start: Value
    results: np.ndarray
    has_floats: bool
    """Is there arithmetic on floats in the chain, which costs more than a look-up?"""


@dataclass
class _Chains:
    """The links of all chains of a graph."""

    graph: Graph
    links: dict[Node, _Link] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._order = list(self.graph.topological())
        for node in self._order:
            link = self._link(node)
            if link is not None:
                self.links[node] = link

    def ends(self) -> list[Node]:
        """The nodes to replace, from last to first; nothing reads what is between them any more."""
        read: set[Node] = set()
        found = []
        for node in reversed(self._order):
            link = self.links.get(node)
            is_read = link is None or node in read or self.graph.is_output(node.out())
            if link is not None and is_read and link.has_floats and node.out().dtype in BYTES:
                found.append(node)
            elif is_read:
                read |= {v.node for v in self.graph.inputs_of(node) if v is not None}
        return found

    def nodes_of(self, end: Node) -> list[Node]:
        """The nodes from a chain's start to ``end``, which comes first."""
        start = self.links[end].start
        found = [end]
        for node in found:
            for v in self.graph.inputs_of(node):
                if v is not None and v != start and v.node in self.links and v.node not in found:
                    found.append(v.node)
        return found

    def _link(self, node: Node) -> _Link | None:
        """The node as a link of a chain; None if it is none."""
        inputs = self.graph.inputs_of(node)
        if len(node.outputs) != 1 or not is_elementwise(node, inputs):
            return None
        if has_trait(node, Trait.STOCHASTIC):
            return None
        carried = [v for v in inputs if v is not None and v.constant is None]
        starts = {self._start(v, node) for v in carried}
        start = starts.pop() if len(starts) == 1 else None
        if start is None or not _one_number_each(inputs):
            return None
        try:
            (results,) = run_node(node, [self._argument(v, start) for v in inputs])
        except GraphError:
            return None
        floats = node.out().tensor_type.dtype.is_float or has_trait(node, Trait.ONE_BYTE_TYPE)
        before = [self.links[v.node] for v in carried if v != start]
        return _Link(start, np.asarray(results), floats or any(b.has_floats for b in before))

    def _start(self, value: Value, reader: Node) -> Value | None:
        """Where the chain begins that ``value`` continues, or begins; None for other values."""
        t = value.type
        if not isinstance(t, TensorType) or t.shape is None or reader.out().shape != t.shape:
            return None
        link = self.links.get(value.node)
        is_byte = value.dtype in BYTES
        if link is not None and not (is_byte and self._is_read_elsewhere(value)):
            return link.start
        return value if is_byte else None

    def _is_read_elsewhere(self, value: Value) -> bool:
        """Is ``value`` read by ops that are not elementwise, or a result of the graph, so that it
        is computed in any case?
        """
        readers = [n for n, _ in self.graph.uses(value)]
        return not all(is_elementwise(n, self.graph.inputs_of(n)) for n in readers)

    def _argument(self, value: Value | None, start: Value) -> np.ndarray | None:
        """An operand for all bytes of ``start``."""
        if value is None:
            return None
        if value == start:
            return np.arange(SIZE, dtype=np.uint8).view(start.dtype)
        if value.constant is not None:
            return value.constant.reshape(())
        return self.links[value.node].results


def _one_number_each(inputs: list[Value | None]) -> bool:
    """Is each constant among the operands a single number?"""
    constants = [v.constant for v in inputs if v is not None]
    return all(c is None or c.size == 1 for c in constants)


__all__ = ["Tabulate"]
