"""The writer of one ``GraphProto``: its nodes, its initializers, the names of its values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx

from ...ir.bindings import has_symbols
from ...ir.dims import Dim
from ...ir.graph import Graph, GraphError, Node, Output, Value
from ...ir.reference import DOMAIN_VERSIONS, node_proto, type_proto
from ...ir.types import Type
from .opsets import OpsetNeeds
from .sizes import Sizes

Exporter: TypeAlias = "Callable[[Scope, Node, list[Value | None]], None]"
"""Writes one node: emits ONNX nodes and names the node's outputs; see :class:`Scope`."""

EXPORTERS: dict[str, Exporter] = {}
"""The exporters of ops that ONNX does not have, by key; users may add their own."""

_FOREIGN_DOMAINS = frozenset({"com.microsoft"})


def has_form(node: Node) -> bool:
    """Can a node be written, as ONNX's own op or by an exporter?"""
    return (
        node.key in EXPORTERS or node.domain in DOMAIN_VERSIONS or node.domain in _FOREIGN_DOMAINS
    )


class ExportError(GraphError):
    """A graph has no ONNX form."""


@dataclass(frozen=True)
class Blocked:
    """The plain form of a value in a blocked layout: its name, and the number of channels."""

    name: str
    channels: int


class Names:
    """Names that are unique in a whole model, as ONNX requires for nested graphs."""

    def __init__(self) -> None:
        self._taken: set[str] = set()
        self._next: dict[str, int] = {}

    def unique(self, hint: str) -> str:
        hint = hint or "v"
        name, n = hint, self._next.get(hint, 0)
        while name in self._taken:
            n += 1
            name = f"{hint}_{n}"
        self._next[hint] = n
        self._taken.add(name)
        return name


class Shared:
    """State that the graphs of one model share: names of values and nodes, used ops, stored
    tensors.

    ``store`` puts an array into a named initializer. ``special`` may write an op with a standard
    name in its own way, and returns whether it did.
    """

    def __init__(
        self,
        store: Callable[[onnx.TensorProto, np.ndarray], None],
        special: Callable[[Scope, Node, list[Value | None]], bool],
    ) -> None:
        self.names = Names()
        self.node_names = Names()
        self.store = store
        self.special = special
        self.opsets = OpsetNeeds()
        self.elements: dict[str, str] = {}
        """Element types of tensors by name; those in the middle of an exporter's nodes lack one."""


class Scope:
    """Writes the nodes of one graph; bodies get a scope of their own inside of it.

    An exporter gets the names of its inputs from ``name(value)``, calls ``emit`` for each ONNX
    node, and uses ``result(value)`` as the output name of those that compute the node's outputs.
    """

    def __init__(self, shared: Shared, proto: onnx.GraphProto, parent: Scope | None = None) -> None:
        self.shared = shared
        self.proto = proto
        self.parent = parent
        self.own: set[str] = set()
        self.blocked: dict[Value, Blocked] = {}
        self.rows: dict[Value, str] = {}
        """The names of NonMaxSuppression's results, for those of ``kiln.KeptBoxes``."""
        self.sizes = Sizes(self)
        self._names: dict[Value, str] = {}
        self._wanted: dict[Value, str] = {}
        self._aliases: dict[Value, Value] = {}
        self._later: dict[Value, Callable[[], None]] = {}

    # ---- names -----------------------------------------------------------------------------------

    def find(self, value: Value) -> Value:
        """The outer value that ``value`` is, if it is an inner graph's input for one."""
        scope: Scope | None = self
        while scope is not None:
            while value in scope._aliases:
                value = scope._aliases[value]
            scope = scope.parent
        return value

    def alias(self, inner: Value, outer: Value) -> None:
        """Make ``inner`` another name for ``outer``, a value of this scope or an outer one."""
        self._aliases[inner] = outer

    def want(self, value: Value, name: str) -> None:
        """Reserve ``name``, which is taken already, for ``value`` when it is written."""
        self._wanted.setdefault(value, name)

    def wanted(self, value: Value) -> str | None:
        return self._wanted.get(value)

    def name(self, value: Value) -> str:
        """The name of a value; constants and blocked forms are written when they are first used."""
        value = self.find(value)
        scope: Scope | None = self
        while scope is not None:
            if value in scope._names:
                return scope._names[value]
            if value in scope._later:
                scope._later.pop(value)()
                return scope._names[value]
            scope = scope.parent
        if value.constant is None:
            raise ExportError(f"value {value.name!r} is used before it is written")
        name = self._names[value] = self.tensor(value.constant, value.name)
        return name

    def names(self, values: Sequence[Value | None]) -> list[str]:
        """The names of a node's inputs; empty where omitted."""
        return ["" if v is None else self.name(v) for v in values]

    def result(self, value: Value) -> str:
        """A name for a value about to be written."""
        name = self._wanted.get(value) or self.shared.names.unique(value.name)
        self._names[value] = name
        if value.type is not None:
            self.shared.elements[name] = _element(type_proto(value.type))
        return name

    def bind(self, value: Value, name: str) -> None:
        """Record that the tensor ``name`` is ``value``."""
        self._names[value] = name

    def later(self, value: Value, write: Callable[[], None]) -> None:
        """Write ``value`` only when its name is first used."""
        self._later[value] = write

    def find_blocked(self, value: Value) -> Blocked | None:
        """The plain form of a blocked value, if it was written."""
        value = self.find(value)
        scope: Scope | None = self
        while scope is not None:
            if value in scope.blocked:
                return scope.blocked[value]
            scope = scope.parent
        return None

    # ---- writing ---------------------------------------------------------------------------------

    def emit(
        self,
        op: str,
        inputs: Sequence[str],
        attrs: Mapping[str, Any] | None = None,
        *,
        outputs: Sequence[str] = (),
        domain: str = "",
        name: str = "",
    ) -> str:
        """Append a node; returns the name of its first output (a new one without ``outputs``)."""
        outputs = list(outputs) or [self.shared.names.unique(name or op.lower())]
        node = Node(op, domain, name, dict(attrs or {}), [Output(o, None) for o in outputs], 0)
        self.append(node_proto(node, inputs, outputs))
        return outputs[0]

    def append(self, proto: onnx.NodeProto) -> None:
        self.shared.opsets.note(proto)
        self.own.update(proto.output)
        if proto.name:  # some runtimes reject a name that two nodes have
            proto.name = self.shared.node_names.unique(proto.name)
        self.proto.node.append(proto)

    def tensor(self, array: np.ndarray, hint: str = "const") -> str:
        """The name of a new initializer."""
        name = self.shared.names.unique(hint)
        proto = self.proto.initializer.add(name=name)
        self.shared.store(proto, array)
        self.shared.elements[name] = onnx.TensorProto.DataType.Name(proto.data_type)
        return name

    def ints(self, values: Sequence[int]) -> str:
        """A one-dimensional int64 initializer."""
        return self.tensor(np.array(values, np.int64), "ints")

    def info(self, value_type: Type, name: str) -> onnx.ValueInfoProto:
        """A typed name, for inputs and outputs of graphs."""
        proto = type_proto(value_type)
        self.shared.elements[name] = _element(proto)
        return onnx.ValueInfoProto(name=name, type=proto)

    def shape(self, dims: Sequence[Dim]) -> str:
        """A one-dimensional int64 tensor of ``dims``."""
        return self.sizes.vector(dims)

    # ---- nodes -----------------------------------------------------------------------------------

    def run(self, graph: Graph) -> None:
        """Write every operation of ``graph``, whose inputs have names already."""
        for v in graph.inputs:
            self.sizes.learn(v)
        for node in graph.topological():
            self._node(graph, node)
            for v in node.values:
                self.sizes.learn(v)

    def _node(self, graph: Graph, node: Node) -> None:
        inputs = graph.inputs_of(node)
        exporter = EXPORTERS.get(node.key)
        try:
            if exporter is not None:
                exporter(self, node, inputs)
            elif not self.shared.special(self, node, inputs):
                self._standard(node, inputs)
        except ExportError:
            raise
        except (GraphError, ValueError, TypeError) as e:
            raise ExportError(str(e), at=node) from e

    def _standard(self, node: Node, inputs: list[Value | None]) -> None:
        if has_symbols(node):
            raise ExportError("an attribute is symbolic", at=node)
        names = self.names(inputs)
        self.append(node_proto(node, names, [self.result(v) for v in node.values]))


def _element(proto: onnx.TypeProto) -> str:
    while not proto.HasField("tensor_type"):
        proto = (
            proto.sequence_type.elem_type
            if proto.HasField("sequence_type")
            else proto.optional_type.elem_type
        )
    return onnx.TensorProto.DataType.Name(proto.tensor_type.elem_type)
