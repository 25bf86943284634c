"""The dataflow graph: a small API over a networkx ``MultiDiGraph``.

Nodes of ``graph.nx`` are :class:`Node` objects (operations). An edge is one use of one value: its
key is the consumer's input index, its ``output`` attribute the producer's output index. What the
edges say is not stored a second time on the nodes.

Model inputs are nodes of op ``Input``, constants of op ``Constant`` (attribute ``value``), and the
results are the inputs of one ``Output`` node. An omitted optional input is an input index without
an edge. Bodies of ``If``, ``Loop``, ``Scan`` and ``Region`` are graphs held as attributes; they are
closed: everything they use comes through their inputs.

What is here adds and removes nodes and edges one by one. Passes change graphs through
:class:`~.edit.Editor`, which infers types and keeps each node's ``origins``.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import networkx as nx
import numpy as np

from ..errors import GraphkilnError
from .dims import Dim
from .origins import NONE, Origins
from .types import TensorType, Type, array_type

Attr: TypeAlias = "int | float | str | bool | tuple[Any, ...] | np.ndarray | Graph | Dim | None"
"""What an attribute may hold: a scalar, a tuple of scalars or dims, an array, or a whole graph."""

_Adjacency: TypeAlias = "Mapping[Node, Mapping[Node, Mapping[int, dict[str, int]]]]"

STANDARD_DOMAINS = ("", "ai.onnx")
"""The names of ONNX's own domain; nodes hold the empty one."""


class GraphError(GraphkilnError):
    """The graph is malformed, or an edit would make it so."""


class Output:
    """One result of a node: its name, unique in the graph, and its type."""

    __slots__ = ("name", "type")

    def __init__(self, name: str, type: Type | None) -> None:
        self.name = name
        self.type = type


class Node:
    """One operation. Hashable by identity; its inputs are the graph's edges into it.

    ``origins`` are the ONNX nodes that it stands for. ``device`` is where it runs, by the name that
    runtimes have for it; empty where nobody has chosen yet.
    """

    __slots__ = ("attrs", "device", "domain", "name", "op", "origins", "outputs", "serial")

    def __init__(
        self, op: str, domain: str, name: str, attrs: dict[str, Attr], outputs: list[Output],
        serial: int, origins: Origins = NONE, device: str = "",
    ) -> None:  # fmt: skip
        self.op = op
        self.domain = domain
        self.name = name
        self.attrs = attrs
        self.outputs = outputs
        self.serial = serial
        self.origins = origins
        self.device = device

    @property
    def key(self) -> str:
        """The op's registry key: ``Conv``, ``com.microsoft.Gelu``."""
        return self.op if not self.domain else f"{self.domain}.{self.op}"

    def out(self, index: int = 0) -> Value:
        """Result ``index``."""
        return Value(self, index)

    @property
    def values(self) -> tuple[Value, ...]:
        """All results, in order."""
        return tuple(Value(self, i) for i in range(len(self.outputs)))

    def __repr__(self) -> str:
        return f"<{self.key} {self.name!r}>"


@dataclass(frozen=True, slots=True)
class Value:
    """Output ``index`` of ``node``."""

    node: Node
    index: int = 0

    @property
    def name(self) -> str:
        """The value's name, unique in its graph."""
        return self.node.outputs[self.index].name

    @property
    def type(self) -> Type:
        """The value's type; raises :class:`GraphError` before inference has run."""
        t = self.node.outputs[self.index].type
        if t is None:
            raise GraphError(f"value {self.name!r} has no type yet")
        return t

    def set_type(self, t: Type) -> None:
        """Give the value a type."""
        self.node.outputs[self.index].type = t

    @property
    def tensor_type(self) -> TensorType:
        """The type of a tensor; raises :class:`GraphError` for other values."""
        t = self.type
        if not isinstance(t, TensorType):
            raise GraphError(f"value {self.name!r} is a {t}, not a tensor")
        return t

    @property
    def shape(self) -> tuple[Dim, ...]:
        """The dims of a tensor; raises ``UndeterminedError`` where its rank is not known."""
        return self.tensor_type.dims

    @property
    def dtype(self) -> str:
        """The element type's name."""
        return self.tensor_type.dtype.name

    @property
    def rank(self) -> int:
        """The number of a tensor's axes; raises ``UndeterminedError`` where it is not known."""
        return self.tensor_type.rank

    @property
    def is_constant(self) -> bool:
        """Is it the array of a ``Constant``?"""
        return self.node.key == "Constant"

    @property
    def constant(self) -> np.ndarray | None:
        """The array of a ``Constant``, else None."""
        value = self.node.attrs.get("value") if self.node.key == "Constant" else None
        return value if isinstance(value, np.ndarray) else None

    def __repr__(self) -> str:
        return f"<Value {self.name!r}>"


class Graph:
    """A dataflow graph; the module's docstring explains its nodes and edges.

    ``len(graph)`` is the number of operations (without ``Input``, ``Constant`` and ``Output``), and
    ``node in graph`` tells whether it has a node.
    """

    def __init__(self, name: str = "main") -> None:
        self.name = name
        self.nx: nx.MultiDiGraph[Node] = nx.MultiDiGraph()
        # The dicts behind nx.pred and nx.succ, which are several times faster to read than these.
        self._pred: _Adjacency = self.nx._pred
        self._succ: _Adjacency = self.nx._succ
        self._serial = 0
        self._names: set[str] = set()
        self._hints: dict[str, int] = {}
        self._inputs: list[Node] = []
        self._sink = self._new_node("Output", "", "outputs", {}, [])

    # ---- names -------------------------------------------------------------------------------

    def unique_name(self, hint: str) -> str:
        """``hint``, or ``hint_1``, ``hint_2`` ... where it is taken; the name is reserved."""
        hint = hint or "v"
        name = hint
        n = self._hints.get(hint, 0)
        while name in self._names:
            n += 1
            name = f"{hint}_{n}"
        self._hints[hint] = n
        self._names.add(name)
        return name

    def is_taken(self, name: str) -> bool:
        """True where a value of the graph has this name (or did, and was not removed)."""
        return name in self._names

    def skip_serials(self, start: int) -> None:
        """Give nodes that are added from now on serials of ``start`` or more."""
        self._serial = max(self._serial, start)

    def _new_node(
        self, op: str, domain: str, name: str, attrs: dict[str, Attr], outputs: list[Output],
        origins: Origins = NONE,
    ) -> Node:  # fmt: skip
        node = Node(op, domain, name, attrs, outputs, self._serial, origins)
        self._serial += 1
        self.nx.add_node(node)
        return node

    # ---- building ----------------------------------------------------------------------------

    def add_input(self, name: str, type: Type, default: np.ndarray | None = None) -> Value:
        """A new model (or body) input; order of calls is the order of inputs.

        ``default`` is the value of a model's input where a run gives none.
        """
        unique = self.unique_name(name)
        attrs: dict[str, Attr] = {} if default is None else {"default": default}
        node = self._new_node("Input", "", unique, attrs, [Output(unique, type)])
        self._inputs.append(node)
        return node.out()

    def add_constant(self, value: np.ndarray, name: str = "const") -> Value:
        """A new constant, typed by its array, which is not copied."""
        value = np.asarray(value)
        unique = self.unique_name(name)
        out = Output(unique, array_type(value))
        return self._new_node("Constant", "", unique, {"value": value}, [out]).out()

    def add_node(
        self,
        op: str,
        inputs: Sequence[Value | None],
        attrs: Mapping[str, Attr] | None = None,
        *,
        outputs: int | Sequence[str] = 1,
        types: Sequence[Type | None] | None = None,
        domain: str = "",
        name: str = "",
        origins: Origins = NONE,
    ) -> Node:
        """Add an operation.

        ``outputs`` is a count or a list of names (made unique); an empty name in the list is an
        omitted output. ``types`` may be None until inference has run.
        """
        if domain in STANDARD_DOMAINS:
            domain = ""
        hints = [name or op.lower()] * outputs if isinstance(outputs, int) else list(outputs)
        outs = [Output(self.unique_name(h or f"{name or op.lower()}_unused"), None) for h in hints]
        if types is not None:
            for out, t in zip(outs, types, strict=True):
                out.type = t
        title = name or (outs[0].name if outs else self.unique_name(op.lower()))
        node = self._new_node(op, domain, title, dict(attrs or {}), outs, origins)
        for i, v in enumerate(inputs):
            if v is not None:
                self._connect(v, node, i)
        return node

    def set_outputs(self, values: Sequence[Value], names: Sequence[str] | None = None) -> None:
        """Declare the graph's results, in order. ``names`` are what users call them."""
        self.nx.remove_edges_from(list(self.nx.in_edges(self._sink, keys=True)))
        for i, v in enumerate(values):
            self._connect(v, self._sink, i)
        self._sink.attrs["names"] = tuple(names) if names else tuple(v.name for v in values)

    def _connect(self, value: Value, consumer: Node, index: int) -> None:
        if value.node not in self.nx:
            raise GraphError(f"value {value.name!r} belongs to another graph")
        self.nx.add_edge(value.node, consumer, key=index, output=value.index)

    # ---- reading -----------------------------------------------------------------------------

    @property
    def inputs(self) -> list[Value]:
        """The graph's inputs, in order."""
        return [n.out() for n in self._inputs]

    @property
    def outputs(self) -> list[Value]:
        """The graph's results, in order."""
        return [v for v in self.inputs_of(self._sink) if v is not None]

    @property
    def output_names(self) -> tuple[str, ...]:
        """What users call the results, in order."""
        return self._sink.attrs.get("names", ())  # type: ignore[return-value]

    @property
    def sink(self) -> Node:
        """The ``Output`` node, whose inputs are the graph's results."""
        return self._sink

    @property
    def nodes(self) -> list[Node]:
        """All operations but ``Input``, ``Constant`` and ``Output``, in creation order."""
        return [n for n in self.nx if n.key not in ("Input", "Constant", "Output")]

    def __len__(self) -> int:
        return sum(1 for n in self.nx if n.key not in ("Input", "Constant", "Output"))

    def __contains__(self, node: object) -> bool:
        return node in self.nx

    def inputs_of(self, node: Node) -> list[Value | None]:
        """The node's inputs by index; None where an optional one is omitted."""
        found: dict[int, Value] = {}
        for producer, edges in self._pred[node].items():
            for index, data in edges.items():
                found[index] = Value(producer, data["output"])
        if not found:
            return []
        return [found.get(i) for i in range(max(found) + 1)]

    def input(self, node: Node, index: int) -> Value | None:
        """Input ``index`` of ``node``, or None."""
        for producer, edges in self._pred[node].items():
            if index in edges:
                return Value(producer, edges[index]["output"])
        return None

    def required_inputs(self, node: Node) -> list[Value]:
        """The node's inputs, none of which may be omitted."""
        values = self.inputs_of(node)
        if any(v is None for v in values):
            raise GraphError(f"{node} omits an input")
        return values  # type: ignore[return-value]

    def uses(self, value: Value) -> list[tuple[Node, int]]:
        """Every use of a value as (consumer, input index)."""
        return [
            (consumer, index)
            for consumer, edges in self._succ[value.node].items()
            for index, data in edges.items()
            if data["output"] == value.index
        ]

    def consumers(self, node: Node) -> list[Node]:
        """The nodes that use a result of ``node``, each once."""
        return list(self._succ[node])

    def in_edges(self, node: Node) -> Mapping[Node, Mapping[int, Mapping[str, int]]]:
        """The edges into ``node`` by producer and input index, to be read only."""
        return self._pred[node]

    def out_edges(self, node: Node) -> Mapping[Node, Mapping[int, Mapping[str, int]]]:
        """The edges out of ``node`` by consumer and input index, to be read only."""
        return self._succ[node]

    def is_output(self, value: Value) -> bool:
        """Is the value one of the graph's results?"""
        edges = self._succ[value.node].get(self._sink)
        return edges is not None and any(d["output"] == value.index for d in edges.values())

    def topological(self) -> list[Node]:
        """All operations (no Input/Constant/Output), in topological order, ties by creation."""
        return [n for n in self.topological_all() if n.key not in ("Input", "Constant", "Output")]

    def topological_all(self) -> Iterator[Node]:
        """Every node in topological order; ties by creation order.

        Raises :class:`GraphError` if the graph has a cycle.
        """
        degree = {n: sum(map(len, edges.values())) for n, edges in self._pred.items()}
        ready = [(n.serial, n) for n, d in degree.items() if d == 0]
        heapq.heapify(ready)
        seen = 0
        while ready:
            _, node = heapq.heappop(ready)
            seen += 1
            yield node
            for consumer, edges in self._succ[node].items():
                degree[consumer] -= len(edges)
                if degree[consumer] == 0:
                    heapq.heappush(ready, (consumer.serial, consumer))
        if seen != len(degree):
            stuck = sorted((n.name for n, d in degree.items() if d > 0))[:3]
            raise GraphError(f"the graph has a cycle through {', '.join(stuck)}")

    def bodies(self, node: Node) -> list[tuple[str, Graph]]:
        """The graphs a node holds as attributes."""
        return [(k, v) for k, v in node.attrs.items() if isinstance(v, Graph)]

    def walk(self, *, regions: bool = True) -> Iterator[Graph]:
        """This graph and those inside of it at any depth, outer ones first.

        Without ``regions`` only bodies of control flow are entered. A graph may be changed before
        the next one is taken from the iterator, which goes on with the bodies that the graph has
        then.
        """
        work = [self]
        while work:
            current = work.pop()
            yield current
            for node in current.nx:
                if node.attrs and (regions or node.key != "kiln.Region"):
                    work.extend(v for v in node.attrs.values() if isinstance(v, Graph))

    def count_nodes(self) -> int:
        """Operations, those in bodies of control flow included; a region counts once."""
        return sum(len(g) for g in self.walk(regions=False))

    # ---- editing -----------------------------------------------------------------------------

    def set_input(self, node: Node, index: int, value: Value | None) -> None:
        """Connect, replace or (None) omit one input."""
        old = self.input(node, index)
        if old is not None:
            self.nx.remove_edge(old.node, node, key=index)
        if value is not None:
            self._connect(value, node, index)

    def replace_uses(self, old: Value, new: Value, only: Iterable[Node] | None = None) -> int:
        """Make every consumer of ``old`` (or those in ``only``) use ``new``; returns the count."""
        allowed = None if only is None else set(only)
        count = 0
        for consumer, index in self.uses(old):
            if allowed is None or consumer in allowed:
                self.nx.remove_edge(old.node, consumer, key=index)
                self._connect(new, consumer, index)
                count += 1
        return count

    def remove(self, node: Node) -> None:
        """Remove a node that nothing uses; raises :class:`GraphError` otherwise."""
        if self._succ[node]:
            raise GraphError(f"{node} is still used")
        if node.key == "Input":
            self._inputs.remove(node)
        self.nx.remove_node(node)
        self._names.difference_update(o.name for o in node.outputs)

    def prune(self, roots: Iterable[Node] | None = None) -> dict[Node, list[Node]]:
        """Remove operations and constants without uses, starting at ``roots`` (default: all).

        Returns what was removed, consumers first, each with the producers of its inputs.
        """
        work = [n for n in (self.nx if roots is None else roots)]
        removed: dict[Node, list[Node]] = {}
        while work:
            node = work.pop()
            if node not in self._succ or self._succ[node] or node.key == "Input":
                continue
            if not node.outputs:  # the results, and what stays for its effect
                continue
            removed[node] = list(self._pred[node])
            work.extend(removed[node])
            self.remove(node)
        return removed

    def drop_last_output(self, node: Node) -> None:
        """Remove the last output of a node; raises :class:`GraphError` where it is used."""
        if self.uses(node.out(len(node.outputs) - 1)):
            raise GraphError(f"the last output of {node} is still used")
        self._names.discard(node.outputs.pop().name)

    def rename(self, value: Value, name: str) -> None:
        """Give a value another (unique) name."""
        self._names.discard(value.name)
        value.node.outputs[value.index].name = self.unique_name(name)

    # ---- copying -----------------------------------------------------------------------------

    def copy(self) -> Graph:
        """A deep copy of structure and bodies; arrays and types are shared."""
        out = Graph(self.name)
        mapping = {self._sink: out._sink}
        for node in self.nx:
            if node is self._sink:
                out._sink.attrs.update(node.attrs)
                continue
            attrs = {k: v.copy() if isinstance(v, Graph) else v for k, v in node.attrs.items()}
            outs = [Output(o.name, o.type) for o in node.outputs]
            twin = Node(
                node.op, node.domain, node.name, attrs, outs, node.serial, node.origins,
                node.device,
            )  # fmt: skip
            out.nx.add_node(twin)
            mapping[node] = twin
        for u, v, index, data in self.nx.edges(keys=True, data=True):
            out.nx.add_edge(mapping[u], mapping[v], key=index, output=data["output"])
        out._inputs = [mapping[n] for n in self._inputs]
        out._names = set(self._names)
        out._hints = dict(self._hints)
        out._serial = self._serial
        return out

    def __repr__(self) -> str:
        return f"<Graph {self.name!r}: {len(self)} nodes>"
