"""Edits of one graph that keep it typed: what rewrite rules build their replacements with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..ir.dims import Dim, free_symbols
from ..ir.graph import Graph, GraphError, Node, Value
from ..ir.infer import Known, infer_node
from ..ir.types import TensorType, to_numpy_dtype, type_symbols
from .symbols import Renames, collect_renames, rename_symbols


class Rewriter:
    """Adds nodes to ``graph``, typed at once, and puts values in the place of others.

    ``fresh`` holds the nodes added since :meth:`start`, ``affected`` the consumers whose inputs
    were replaced since then.
    """

    def __init__(self, graph: Graph, known: Known) -> None:
        self.graph = graph
        self.known = known
        self.fresh: list[Node] = []
        self.affected: list[Node] = []
        self.renames: Renames = {}
        self._hint = ""

    def start(self, hint: str = "") -> None:
        """Begin one rewrite; nodes it adds are named after ``hint``."""
        self.fresh = []
        self.affected = []
        self._hint = hint

    def discard(self) -> None:
        """Remove what was added since :meth:`start` and is not used."""
        self.graph.prune(reversed(self.fresh))
        self.fresh = []

    # ---- building ----------------------------------------------------------------------------

    def node(
        self,
        op: str,
        inputs: Sequence[Value | None],
        attrs: dict[str, Any] | None = None,
        *,
        domain: str = "",
        outputs: int | Sequence[str] = 1,
    ) -> Node:
        """A new node with ``outputs`` results (or results of these names).

        Raises ``InferenceError`` where the types do not fit.
        """
        names = [self._hint or op.lower()] * outputs if isinstance(outputs, int) else outputs
        added = self.graph.add_node(op, inputs, attrs, outputs=names, domain=domain)
        self.fresh.append(added)
        infer_node(self.graph, added, self.known)
        return added

    def op(self, key: str, *inputs: Value | None, **attrs: Any) -> Value:
        """The first result of a new node of op ``key`` (``Relu``, ``kiln.Reshape``)."""
        domain, _, op = key.rpartition(".")
        return self.node(op, inputs, attrs, domain=domain).out()

    def constant(self, array: np.ndarray, hint: str = "") -> Value:
        value = self.graph.add_constant(np.asarray(array), hint or f"{self._hint}_const")
        self.fresh.append(value.node)
        infer_node(self.graph, value.node, self.known)
        return value

    def scalar(self, number: float | int | bool, like: Value) -> Value:
        """A constant scalar of the element type of ``like``."""
        return self.constant(np.asarray(number, to_numpy_dtype(like.dtype)))

    # ---- replacing ---------------------------------------------------------------------------

    def replace(self, old: Value, new: Value) -> None:
        """Make all uses of ``old`` use ``new``, and drop what is dead then.

        A node of this rewrite takes over the name of what it replaces. Raises
        :class:`GraphError` where the types cannot be the same.
        """
        self.replace_all([(old, new)])

    def replace_all(self, pairs: Sequence[tuple[Value, Value]]) -> None:
        """:meth:`replace` for several values at once."""
        pairs = [(old, new) for old, new in pairs if old != new]
        for old, new in pairs:
            if not can_replace(old, new):
                told = f"{new.name!r}, a {new.type}, cannot stand for {old.name!r}, a {old.type}"
                raise GraphError(told)
            collect_renames(old.node, old.type, new.type, self.renames)
            self.affected += [consumer for consumer, _ in self.graph.uses(old)]
            self.graph.replace_uses(old, new)
        names = [(old.name, old.node.name) for old, _ in pairs]
        self.graph.prune([old.node for old, _ in pairs])
        for (old, new), (name, node_name) in zip(pairs, names, strict=True):
            if old.node not in self.graph and new.node in self.fresh:
                self.graph.rename(new, name)
                new.node.name = node_name if len(pairs) == 1 else name

    def finish(self) -> None:
        """End all rewrites: symbols of sizes that replaced nodes introduced are substituted."""
        if self.renames:
            rename_symbols(self.graph, self.renames)
            self.renames = {}


def can_replace(old: Value, new: Value) -> bool:
    """Can the types of the two values be the same?"""
    a, b = old.type, new.type
    if not isinstance(a, TensorType) or not isinstance(b, TensorType):
        return type(a) is type(b)
    return a.dtype == b.dtype and _compatible(a, b)


def _compatible(a: TensorType, b: TensorType) -> bool:
    if a.shape is None or b.shape is None:
        return True
    if len(a.shape) != len(b.shape):
        return False
    pairs = zip(a.shape, b.shape, strict=True)
    return all(x == y or not (isinstance(x, int) and isinstance(y, int)) for x, y in pairs)


# ---- questions that rules ask -----------------------------------------------------------------


def input_symbols(graph: Graph) -> frozenset[str]:
    """The symbols that the types of the graph's inputs bind."""
    return frozenset().union(*(type_symbols(v.type) for v in graph.inputs))


def symbols_bound(dims: Sequence[Dim], bound: frozenset[str], inputs: Sequence[Value]) -> bool:
    """Are the symbols of ``dims`` known wherever a node with these inputs runs?

    Symbols of data-dependent sizes are, where an input carries them: its producers then run
    after the node that determines the size.
    """
    needed = frozenset().union(*(free_symbols(d) for d in dims)) - bound
    if not needed:
        return True
    return needed <= frozenset().union(*(type_symbols(v.type) for v in inputs))


def sole_consumer(graph: Graph, value: Value) -> Node | None:
    """The one node that uses ``value``; None where there are several or it is a result."""
    found: Node | None = None
    for consumer, edges in graph.out_edges(value.node).items():
        if any(d["output"] == value.index for d in edges.values()):
            if found is not None or consumer is graph.sink:
                return None
            found = consumer
    return found


def single_use(graph: Graph, value: Value) -> bool:
    """Is ``value`` used exactly once, and by an operation?"""
    consumer = sole_consumer(graph, value)
    if consumer is None:
        return False
    edges = graph.out_edges(value.node)[consumer]
    return sum(d["output"] == value.index for d in edges.values()) == 1


def splat(value: Value | None) -> float | int | bool | None:
    """The number that all elements of a constant are, or None."""
    array = None if value is None else value.constant
    if array is None or array.size == 0 or array.dtype == object:
        return None
    first = array.reshape(-1)[:1]
    if array.size > 1 and not _all_equal(array, first):
        return None
    number: float | int | bool = first.tolist()[0]
    return number


def _all_equal(array: np.ndarray, first: np.ndarray) -> bool:
    if not array.strides or not any(array.strides):
        return True
    # Most constants differ early on, so a prefix settles it without reading all of a weight.
    head = array.reshape(-1)[:16] if array.flags.c_contiguous else array.flat[:16]
    return bool(np.all(head == first)) and bool(np.all(array == first))


__all__ = [
    "Rewriter", "can_replace", "input_symbols", "single_use", "sole_consumer", "splat",
    "symbols_bound",
]  # fmt: skip
