"""Sequences and optionals whose elements are known at compile time are resolved.

SequenceAt(SequenceConstruct(a, b), 1) = b          ConcatFromSequence(a, b) = Concat(a, b)
SplitToSequence(x) = the parts of Split(x)          SequenceLength = a constant
OptionalGetElement(Optional(x)) = x                 OptionalHasElement(Optional(x)) = true
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..ir.conditions import Condition, Relation
from ..ir.graph import Graph, Node, Value
from ..ir.registry import attribute
from ..ir.types import SequenceType, TensorType
from .base import Pass, PassContext, register_pass
from .claims import exact

_NO_TENSORS = "it is about lists and optionals"


@register_pass
@dataclass(frozen=True)
class Sequences(Pass):
    """Resolves sequences of at most ``max_elements`` known elements."""

    max_elements: int = 256

    name = "sequences"
    claims = {
        "sequences": exact(
            "at([a, b], 1) = b, and the length, parts and joins of known sequences", _NO_TENSORS
        ),
        "optionals": exact("get(optional(x)) = x, has(optional(x)) = true", _NO_TENSORS),
    }

    def apply(self, graph: Graph, context: PassContext) -> Mapping[str, int]:
        resolver = _Resolver(graph, context, self.max_elements)
        for node in graph.topological():
            if node in graph:
                resolver.visit(node)
        return resolver.finish()


class _Resolver:
    """``elements`` maps known sequences to their elements, ``held`` optionals to their values."""

    def __init__(self, graph: Graph, context: PassContext, limit: int) -> None:
        self.graph = graph
        self.editor = context.editor(graph)
        self.limit = limit
        self.elements: dict[Value, list[Value]] = {}
        self.held: dict[Value, Value | None] = {}
        self.counts: Counter[str] = Counter()

    def finish(self) -> Mapping[str, int]:
        self.editor.finish()
        return self.counts

    def visit(self, node: Node) -> None:
        rule = _RULES.get(node.key)
        if rule is not None:
            self.editor.begin("sequences", node, hint=node.outputs[0].name)
            rule(self, node, self.graph.inputs_of(node))

    def replace(self, node: Node, new: Value) -> None:
        self.editor.replace(node.out(), new)
        self.counts[node.op] += 1

    def known(self, value: Value | None) -> list[Value] | None:
        return None if value is None else self.elements.get(value)

    def position(self, value: Value | None, default: int) -> int | None:
        """A known position; ``default`` where it is omitted."""
        if value is None:
            return default
        array = self.editor.known.get(value)
        if array is None or array.dtype == object:
            return None
        return int(array.reshape(-1)[0])

    # ---- making sequences --------------------------------------------------------------------

    def construct(self, node: Node, inputs: list[Value | None]) -> None:
        if len(inputs) <= self.limit:
            self.elements[node.out()] = [v for v in inputs if v is not None]

    def empty(self, node: Node, _inputs: list[Value | None]) -> None:
        self.elements[node.out()] = []

    def identity(self, node: Node, inputs: list[Value | None]) -> None:
        source = inputs[0]
        found = self.known(source)
        if found is not None:
            self.elements[node.out()] = found
        if source in self.held:
            self.held[node.out()] = self.held[source]

    def insert(self, node: Node, inputs: list[Value | None]) -> None:
        found = self.known(inputs[0])
        if found is None or inputs[1] is None or len(found) >= self.limit:
            return
        at = self.position(inputs[2] if len(inputs) > 2 else None, len(found))
        if at is not None and -len(found) <= at <= len(found):
            at += len(found) if at < 0 else 0
            self.elements[node.out()] = [*found[:at], inputs[1], *found[at:]]

    def erase(self, node: Node, inputs: list[Value | None]) -> None:
        found = self.known(inputs[0])
        if not found:
            return
        at = self.position(inputs[1] if len(inputs) > 1 else None, len(found) - 1)
        if at is not None and -len(found) <= at < len(found):
            at %= len(found)
            self.elements[node.out()] = found[:at] + found[at + 1 :]

    def split(self, node: Node, inputs: list[Value | None]) -> None:
        """Make the parts of a sequence, but only if every use of it can be resolved."""
        x = inputs[0]
        if x is None or not self._only_read(node):
            return
        axis = int(attribute(node, "axis")) % x.rank
        sizes = self._sizes(x, axis, inputs[1] if len(inputs) > 1 else None)
        if not sizes or len(sizes) > self.limit:
            return
        parts = self._parts(x, axis, sizes)
        if len(inputs) < 2 and not attribute(node, "keepdims"):
            shape = (*x.shape[:axis], *x.shape[axis + 1 :])
            parts = [self.editor.op("kiln.Reshape", p, shape=shape) for p in parts]
        self.elements[node.out()] = parts

    def _only_read(self, node: Node) -> bool:
        """Can this pass resolve all uses of the node's sequences?"""
        return all(n.key in _READING for v in node.values for n, _ in self.graph.uses(v))

    def _sizes(self, x: Value, axis: int, given: Value | None) -> list[int] | None:
        """The sizes of the parts of a SplitToSequence, if they are known."""
        total = x.shape[axis]
        if given is None:
            return [1] * total if isinstance(total, int) else None
        known = self.editor.known.get(given)
        if known is None or known.dtype == object:
            return None
        if known.ndim:
            return [int(n) for n in known]
        chunk = int(known)
        if not isinstance(total, int) or chunk < 1:
            return None
        return [min(chunk, total - start) for start in range(0, total, chunk)]

    def _parts(self, x: Value, axis: int, sizes: list[int]) -> list[Value]:
        if len(sizes) == 1:
            return [x]
        lengths = self.editor.constant(np.array(sizes, np.int64))
        split = self.editor.node("Split", [x, lengths], {"axis": axis}, outputs=len(sizes))
        return list(split.values)

    # ---- reading sequences -------------------------------------------------------------------

    def at(self, node: Node, inputs: list[Value | None]) -> None:
        found = self.known(inputs[0])
        at = self.position(inputs[1], 0) if found else None
        if found and at is not None and -len(found) <= at < len(found):
            self.replace(node, found[at])

    def length(self, node: Node, inputs: list[Value | None]) -> None:
        found = self.known(inputs[0])
        if found is not None:
            self.replace(node, self.editor.constant(np.array(len(found), np.int64)))

    def concat(self, node: Node, inputs: list[Value | None]) -> None:
        found = self.known(inputs[0])
        if not found:
            return
        axis = int(attribute(node, "axis"))
        stacks = bool(attribute(node, "new_axis"))
        if not _fit(found, None if stacks else axis % found[0].rank):
            return  # the op checks sizes at run time, which a Concat that a pass makes does not
        if stacks:
            axis %= found[0].rank + 1
            found = [
                self.editor.op("kiln.Reshape", v, shape=(*v.shape[:axis], 1, *v.shape[axis:]))
                for v in found
            ]
        self.replace(node, self.editor.op("Concat", *found, axis=axis))

    # ---- optionals ---------------------------------------------------------------------------

    def optional(self, node: Node, inputs: list[Value | None]) -> None:
        self.held[node.out()] = inputs[0] if inputs else None

    def has_element(self, node: Node, inputs: list[Value | None]) -> None:
        source = inputs[0] if inputs else None
        if source is None or source in self.held or _is_plain(source):
            present = source is not None and self.held.get(source, source) is not None
            self.replace(node, self.editor.constant(np.array(present)))

    def get_element(self, node: Node, inputs: list[Value | None]) -> None:
        source = inputs[0]
        if source is None:
            return
        inner = source if _is_plain(source) else self.held.get(source)
        if inner is None:
            return
        if inner in self.elements:
            self.elements[node.out()] = self.elements[inner]
        self.replace(node, inner)


def _fit(values: list[Value], axis: int | None) -> bool:
    """Are all sizes but those along ``axis`` known to be equal?"""
    first = values[0].shape
    return all(
        len(v.shape) == len(first)
        and all(
            i == axis or Condition(Relation.EQUAL, a, b, "", "").proved()
            for i, (a, b) in enumerate(zip(first, v.shape, strict=True))
        )
        for v in values[1:]
    )


def _is_plain(value: Value) -> bool:
    """Is this a tensor or sequence, not an optional?"""
    return isinstance(value.type, TensorType | SequenceType)


_Rule = Callable[[_Resolver, Node, "list[Value | None]"], None]

_READING: dict[str, _Rule] = {
    "SequenceAt": _Resolver.at,
    "SequenceLength": _Resolver.length,
    "ConcatFromSequence": _Resolver.concat,
}
"""Rules for ops that read a known sequence and return a tensor."""

_RULES: dict[str, _Rule] = {
    **_READING,
    "SequenceConstruct": _Resolver.construct,
    "SequenceEmpty": _Resolver.empty,
    "SequenceInsert": _Resolver.insert,
    "SequenceErase": _Resolver.erase,
    "SplitToSequence": _Resolver.split,
    "Identity": _Resolver.identity,
    "Optional": _Resolver.optional,
    "OptionalHasElement": _Resolver.has_element,
    "OptionalGetElement": _Resolver.get_element,
}
