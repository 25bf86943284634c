"""The verifier: checks, in linear time, what every graph between two passes must fulfil."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NoReturn

import numpy as np

from ..errors import Blocker
from .dims import SymExpr
from .graph import Graph, GraphError, Node, Output, Value
from .infer import Known, infer_outputs, make_known
from .registry import OpSpec, attribute, spec
from .text import MAX_NESTING
from .type_match import same_type
from .types import DType, OptionalType, SequenceType, TensorType

# Attributes that closing bodies adds to ONNX's own; see ir.control.
_CLOSING = frozenset({"num_carried", "num_captured"})
_LEAVES = (
    bool, int, float, str, bytes, np.generic, np.ndarray, SymExpr, DType, TensorType, SequenceType,
    OptionalType,
)  # fmt: skip


class VerifyError(GraphError):
    """A graph breaks a rule; the message names graph and node."""


def verify(graph: Graph, *, types: bool = True) -> None:
    """Raise :class:`VerifyError` if ``graph`` or a body in it is malformed.

    Names, edges, arity, attributes and bodies are checked. With ``types``, it is also checked that
    every value has a type, and that inference from the types of its node's inputs agrees with it: a
    type may be more specific than the inferred one, but not contradict it.
    """
    _Verifier(graph, types, 0).run()


class _Verifier:
    def __init__(self, graph: Graph, types: bool, depth: int) -> None:
        self._graph = graph
        self._types = types
        self._depth = depth
        self._known: Known = {}

    def run(self) -> None:
        if self._depth > MAX_NESTING:
            self._fail(None, f"graphs are nested deeper than {MAX_NESTING}")
        self._names()
        self._inputs()
        self._outputs()
        for node in self._graph.nx:
            self._edges(node)
        try:
            order = list(self._graph.topological_all())
        except GraphError as e:
            self._fail(None, str(e))
        for node in order:
            self._node(node)

    def _fail(self, node: Node | None, message: str) -> NoReturn:
        name, op = ("", "") if node is None else (node.name, node.key)
        raise VerifyError(Blocker(message, name, op, graph=self._graph.name))

    # ---- structure -------------------------------------------------------------------------------

    def _names(self) -> None:
        seen: set[str] = set()
        for node in self._graph.nx:
            if not isinstance(node, Node):
                self._fail(None, f"{node!r} is not a node")
            for out in node.outputs:
                if not out.name or out.name in seen:
                    self._fail(node, f"the name {out.name!r} is empty or stands for two values")
                if not self._graph.is_taken(out.name):
                    self._fail(node, f"the name {out.name!r} was not given out by the graph")
                seen.add(out.name)

    def _inputs(self) -> None:
        declared = [v.node for v in self._graph.inputs]
        found = {n for n in self._graph.nx if n.key == "Input"}
        if len(set(declared)) != len(declared) or set(declared) != found:
            self._fail(None, "the declared inputs are not the Input nodes")
        for node in declared:
            if len(node.outputs) != 1:
                self._fail(node, "an input has one value")

    def _outputs(self) -> None:
        sinks = [n for n in self._graph.nx if n.key == "Output"]
        if sinks != [self._graph.sink] or self._graph.sink.outputs:
            self._fail(None, "a graph has one Output node, without values")
        names = self._graph.output_names
        values, count = self._graph.outputs, self._graph.nx.in_degree(self._graph.sink)
        if len(names) != count:
            self._fail(None, f"{count} outputs, {len(names)} output names")
        if self._depth == 0 and len(set(names)) != len(set(zip(names, values, strict=True))):
            self._fail(None, "two outputs have one name")

    def _edges(self, node: Node) -> None:
        used: set[int] = set()
        for producer, edges in self._graph.nx.pred[node].items():
            for index, data in edges.items():
                output = data.get("output")
                if not isinstance(output, int) or not 0 <= output < len(producer.outputs):
                    self._fail(node, f"input {index} is output {output} of {producer}")
                if not isinstance(index, int) or index < 0:
                    self._fail(node, f"{index!r} is not an input index")
                if index in used:
                    self._fail(node, f"input {index} has two producers")
                used.add(index)
        if node is self._graph.sink and used != set(range(len(used))):
            self._fail(node, f"outputs {sorted(used)} are not contiguous")
        if node.key in ("Input", "Constant") and used:
            self._fail(node, "takes no inputs")
        self._arity(node, used)

    def _arity(self, node: Node, used: set[int]) -> None:
        if node.key in ("Input", "Output", "Constant"):
            return
        op = self._spec(node)
        count = max(used, default=-1) + 1
        if count > op.max_inputs:
            self._fail(node, f"takes at most {op.max_inputs} inputs, has {count}")
        missing = [i for i in range(op.min_inputs) if i not in used and i not in op.omitted]
        if missing:
            self._fail(node, f"input {missing[0]} is required")
        if not op.min_outputs <= len(node.outputs) <= op.max_outputs:
            self._fail(
                node,
                f"has {len(node.outputs)} outputs, its op {op.min_outputs} to {op.max_outputs}",
            )

    def _spec(self, node: Node) -> OpSpec:
        found = spec(node.key)
        return found if found is not None else self._fail(node, "the op is not known")

    # ---- nodes -----------------------------------------------------------------------------------

    def _node(self, node: Node) -> None:
        if node is self._graph.sink:
            return
        for name, value in node.attrs.items():
            if not _is_attribute(value):
                self._fail(node, f"attribute {name!r} holds a {type(value).__name__}")
        if node.key == "Constant":
            self._constant(node)
        elif node.key != "Input":
            self._attribute_names(node)
            self._bodies(node)
        if self._types:
            self._output_types(node)

    def _constant(self, node: Node) -> None:
        if not isinstance(node.attrs.get("value"), np.ndarray) or len(node.outputs) != 1:
            self._fail(node, "a constant holds one array")

    def _attribute_names(self, node: Node) -> None:
        op = self._spec(node)
        if op.attributes is None:
            return
        for name in node.attrs:
            if name not in op.attributes and name not in op.defaults and name not in _CLOSING:
                self._fail(node, f"has no attribute {name!r}")

    def _output_types(self, node: Node) -> None:
        for out in node.outputs:
            if out.type is None:
                self._fail(node, f"value {out.name!r} has no type")
        if node.key == "Input":
            return
        try:
            types = self._infer(node)
        except GraphError as e:
            self._fail(node, f"inference fails: {e}")
        for out, t in zip(node.outputs, types, strict=False):
            if out.type is not None and not same_type(out.type, t):
                self._fail(node, f"value {out.name!r} is {out.type}, inference says {t}")

    def _infer(self, node: Node) -> list[Any]:
        if node.key == "Constant":
            return make_known(node, self._known)
        sources = self._graph.inputs_of(node)
        if self._graph.bodies(node):
            node = _twin(node)
        return infer_outputs(self._graph, node, self._known, sources)

    # ---- bodies ----------------------------------------------------------------------------------

    def _bodies(self, node: Node) -> None:
        for name, body in self._graph.bodies(node):
            inputs = self._graph.inputs_of(node)
            self._body_arity(node, name, body, len(inputs))
            if self._types:
                self._body_inputs(node, name, body, inputs)
            _Verifier(body, self._types, self._depth + 1).run()

    def _body_arity(self, node: Node, name: str, body: Graph, given: int) -> None:
        takes, gives = given, len(node.outputs)
        if node.key == "If":
            takes -= 1
        elif node.key == "Loop":
            takes, gives = max(given, 2), gives + 1
        if len(body.inputs) != takes or len(body.outputs) < gives:
            self._fail(
                node,
                f"{name} takes {len(body.inputs)} inputs and gives {len(body.outputs)} outputs, "
                f"where {takes} and {gives} are needed",
            )

    def _body_inputs(self, node: Node, name: str, body: Graph, inputs: list[Value | None]) -> None:
        """Check that values which enter a body unchanged have the type of the body's input."""
        for i in _captured(node, len(inputs)):
            value, inner = inputs[i], body.inputs[i - len(inputs)]
            declared, given = inner.node.outputs[0].type, None if value is None else value.type
            if declared is None or given is None or not same_type(given, declared):
                self._fail(node, f"{name}'s input {inner.name!r} is {declared}, gets {given}")


def _count(node: Node, attr: str) -> int:
    return int(attribute(node, attr) or 0)


_FIRST_CAPTURED: dict[str, Callable[[Node, int], int]] = {
    "If": lambda node, count: 1,
    "Loop": lambda node, count: 2 + _count(node, "num_carried"),
    "Scan": lambda node, count: _count(node, "num_carried") + _count(node, "num_scan_inputs"),
    "SequenceMap": lambda node, count: count - _count(node, "num_captured"),
}
"""By op, the index of the first input that bodies get unchanged, for a node of so many inputs."""


def _captured(node: Node, count: int) -> Iterable[int]:
    """The inputs of a node that its bodies get unchanged."""
    first = _FIRST_CAPTURED.get(node.key)
    return range(0 if first is None else first(node, count), count)


def _twin(node: Node) -> Node:
    """A copy of a node, its bodies and outputs included, whose types inference may change."""
    attrs = {k: v.copy() if isinstance(v, Graph) else v for k, v in node.attrs.items()}
    outputs = [Output(o.name, o.type) for o in node.outputs]
    return Node(node.op, node.domain, node.name, attrs, outputs, node.serial)


def _is_attribute(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return all(_is_attribute(v) for v in value)
    return value is None or isinstance(value, (*_LEAVES, Graph))


__all__ = ["VerifyError", "verify"]
