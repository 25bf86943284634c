"""The editor, by which passes change graphs: it infers types, keeps origins, tells a listener."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from .clone import clone_attrs, constant_of, mapped_outputs
from .graph import Graph, GraphError, Node, Value
from .infer import Known, infer_node
from .origins import NONE, Origins
from .symbols import (
    Renames,
    collect_arguments,
    collect_renames,
    rename_attrs,
    rename_symbols,
)
from .types import TensorType, Type, to_numpy_dtype


class Listener(Protocol):
    """Is called for every edit, with the rule that makes it."""

    def inserted(self, node: Node, rule: str) -> None:
        """``node`` was added."""
        ...

    def removed(self, node: Node, rule: str) -> None:
        """``node`` was taken out of the graph; its name and origins are as they were."""
        ...

    def replaced(self, old: Value, new: Value, rule: str) -> None:
        """What used ``old`` uses ``new`` now."""
        ...


class Editor:
    """Edits ``graph``. Types of new nodes are inferred as they are added, and known values stored
    in ``known``.

    An edit begins with :meth:`begin`, which names the rule and the nodes that it rewrites. New
    nodes get the origins of those. When values are replaced by others, the origins of each node
    that goes away move to a new node of the same op, or if there is none, to the node that computes
    the result. A batch normalisation that is folded into a convolution becomes one of the
    convolution's origins; if a transpose moves past an addition, the addition keeps its origins and
    gets none.

    ``fresh`` are the nodes that were added since :meth:`begin`, ``affected`` the consumers whose
    inputs were replaced since then.
    """

    def __init__(self, graph: Graph, known: Known, listener: Listener | None = None) -> None:
        self.graph = graph
        self.known = known
        self.fresh: list[Node] = []
        self.affected: list[Node] = []
        self._listener = listener
        self._renames: Renames = {}
        self._rule = ""
        self._hint = ""
        self._sources: tuple[Node, ...] = ()
        self._origins = NONE
        self._device = ""
        self._settled: set[Node] = set()

    def begin(self, rule: str, *sources: Node, hint: str = "") -> None:
        """Begin one edit by ``rule`` of ``sources``; values it adds are named after ``hint``.

        What it adds runs where the sources that have a device do, if they agree on one.
        """
        self.fresh = []
        self.affected = []
        self._rule = rule
        self._hint = hint
        self._sources = sources
        self._origins = Origins.union(n.origins for n in sources)
        devices = {n.device for n in sources if n.device}
        self._device = devices.pop() if len(devices) == 1 else ""
        self._settled = set()

    def discard(self) -> None:
        """Remove nodes that were added since :meth:`begin` and are not used."""
        self.remove_unused(reversed(self.fresh))
        self.fresh = []

    def finish(self) -> None:
        """End all edits: substitute the symbols of data-dependent sizes that replaced nodes
        introduced.
        """
        if self._renames:
            rename_symbols(self.graph, self._renames)
            self._renames = {}

    # ---- adding ------------------------------------------------------------------------------

    def node(
        self,
        op: str,
        inputs: Sequence[Value | None],
        attrs: dict[str, Any] | None = None,
        *,
        domain: str = "",
        outputs: int | Sequence[str] = 1,
        name: str = "",
        types: Sequence[Type] | None = None,
    ) -> Node:
        """A new node with ``outputs`` results (or results of these names).

        ``types`` are those of the results if they are known already; else they are inferred. Raises
        ``InferenceError`` if the inputs' types do not fit the op.
        """
        names = [self._hint or op.lower()] * outputs if isinstance(outputs, int) else outputs
        added = self.graph.add_node(
            op, inputs, attrs, outputs=names, types=types, domain=domain, name=name,
            origins=self._origins,
        )  # fmt: skip
        added.device = self._device
        return self._added(added, infer=types is None)

    def op(self, key: str, *inputs: Value | None, **attrs: Any) -> Value:
        """The first result of a new node of op ``key`` (``Relu``, ``kiln.Reshape``)."""
        domain, _, op = key.rpartition(".")
        return self.node(op, inputs, attrs, domain=domain).out()

    def constant(self, array: np.ndarray, hint: str = "") -> Value:
        """A new constant with the origins of this edit, named after ``hint``."""
        value = self.graph.add_constant(np.asarray(array), hint or f"{self._hint}_const")
        value.node.origins = self._origins
        return self._added(value.node).out()

    def input(self, name: str, type: Type, default: np.ndarray | None = None) -> Value:
        """A new input of the graph behind those that it has, see :meth:`.Graph.add_input`."""
        return self._added(self.graph.add_input(name, type, default).node, infer=False).out()

    def scalar(self, number: float | int | bool, like: Value) -> Value:
        """A constant scalar of the element type of ``like``."""
        return self.constant(np.asarray(number, to_numpy_dtype(like.dtype)))

    def clone(
        self,
        node: Node,
        inputs: Sequence[Value | None],
        *,
        attrs: dict[str, Any] | None = None,
    ) -> Node:
        """A copy of ``node`` (which may be of another graph) on other inputs, with types inferred.

        It keeps the names, the origins, the device, and unless others are given, the attributes.
        """
        copy = self.graph.add_node(
            node.op, inputs, clone_attrs(node) if attrs is None else attrs,
            outputs=[o.name for o in node.outputs], domain=node.domain, name=node.name,
            origins=node.origins,
        )  # fmt: skip
        copy.device = node.device
        self._settled.add(copy)
        return self._added(copy)

    def inline(self, body: Graph, inputs: Sequence[Value | None]) -> list[Value]:
        """Copies of all nodes of a closed body in this graph; returns the copies of its results.

        Symbols of the body's inputs become the dims of ``inputs``, and symbols of data-dependent
        sizes those of the copies.
        """
        mapping: dict[Value, Value | None] = dict(zip(body.inputs, inputs, strict=True))
        renames: Renames = {}
        for parameter, argument in mapping.items():
            if argument is not None:
                collect_arguments(parameter.type, argument.type, renames)
        # Checks come last: they have no inputs, but may name sizes that other nodes introduce.
        for node in sorted(body.topological_all(), key=lambda n: not n.outputs):
            if node.key == "Constant":
                mapping[node.out()] = self.constant(constant_of(node), node.outputs[0].name)
            elif node.key not in ("Input", "Output"):
                attrs = clone_attrs(node)
                rename_attrs(attrs, renames)
                mapped = [None if v is None else mapping[v] for v in body.inputs_of(node)]
                copy = self.clone(node, mapped, attrs=attrs)
                for old, new in zip(node.values, copy.values, strict=True):
                    collect_renames(node, old.node.outputs[old.index].type, new.type, renames)
                    mapping[old] = new
        return mapped_outputs(body, mapping)

    def _added(self, node: Node, infer: bool = True) -> Node:
        self.fresh.append(node)
        if infer:
            infer_node(self.graph, node, self.known)
        if self._listener is not None:
            self._listener.inserted(node, self._rule)
        return node

    # ---- replacing ---------------------------------------------------------------------------

    def replace(self, old: Value, new: Value) -> None:
        """Make all uses of ``old`` use ``new``, and remove what is dead then.

        A node of this edit takes over the name of the value that it replaces. Raises
        :class:`GraphError` if the types cannot be the same.
        """
        self.replace_all([(old, new)])

    def replace_all(self, pairs: Sequence[tuple[Value, Value]]) -> None:
        """:meth:`replace` for several values at once."""
        pairs = [(old, new) for old, new in pairs if old != new]
        for old, new in pairs:
            if not can_replace(old, new):
                told = f"{new.name!r}, a {new.type}, cannot stand for {old.name!r}, a {old.type}"
                raise GraphError(told)
            collect_renames(old.node, old.type, new.type, self._renames)
            self.affected += [consumer for consumer, _ in self.graph.uses(old)]
            self.replace_uses(old, new)
        names = [(old.name, old.node.name) for old, _ in pairs]
        gone = self.remove_unused([old.node for old, _ in pairs])
        self._move_origins([old.node for old, _ in pairs], gone, [new.node for _, new in pairs])
        for (old, new), (name, node_name) in zip(pairs, names, strict=True):
            if old.node not in self.graph and new.node in self.fresh:
                self.graph.rename(new, name)
                new.node.name = node_name if len(pairs) == 1 else name

    def replace_uses(self, old: Value, new: Value, only: Iterable[Node] | None = None) -> None:
        """Make every consumer of ``old`` (or those in ``only``) use ``new``; nothing is removed."""
        self.graph.replace_uses(old, new, only)
        if self._listener is not None:
            self._listener.replaced(old, new, self._rule)

    def set_input(self, node: Node, index: int, value: Value | None) -> None:
        """Connect, replace or (None) omit one input."""
        old = self.graph.input(node, index)
        self.graph.set_input(node, index, value)
        if self._listener is not None and old is not None and value is not None:
            self._listener.replaced(old, value, self._rule)

    def remove_unused(self, roots: Iterable[Node] | None = None) -> dict[Node, list[Node]]:
        """Remove operations and constants without uses, starting at ``roots`` (default: all).

        Returns what was removed, consumers first, each with the producers of its inputs.
        """
        removed = self.graph.prune(roots)
        if self._listener is not None:
            for node in removed:
                self._listener.removed(node, self._rule)
        return removed

    def remove(self, node: Node) -> None:
        """Remove a node (or input) that nothing uses; raises :class:`GraphError` otherwise."""
        self.graph.remove(node)
        if self._listener is not None:
            self._listener.removed(node, self._rule)

    def drop_last_output(self, node: Node) -> None:
        """Remove the last output of a node; raises :class:`GraphError` where it is used."""
        self.graph.drop_last_output(node)

    def remove_replaced(self, heirs: Mapping[Node, Node]) -> None:
        """Remove nodes that others have replaced, and all that is dead with them.

        ``heirs`` maps each node to the one that replaces it and gets its origins. The heir also
        gets the origins of nodes that die with it, such as the conversion of its weights, and of
        nodes whose own heir died.
        """
        removed: dict[Node, list[Node]] = {}
        for node in heirs:
            removed.update(self.remove_unused([node]))
        removed.update(self.remove_unused())
        found = _heirs(removed, {n: h for n, h in heirs.items() if h in self.graph}, heirs)
        for node, above in found.items():
            for heir in above:
                heir.origins = Origins.union([heir.origins, node.origins])

    def _move_origins(
        self, roots: Sequence[Node], removed: dict[Node, list[Node]], results: Sequence[Node]
    ) -> None:
        """Move the origins of removed nodes to nodes that this edit added."""
        ours = [n for n in self.fresh if n in self.graph and n not in self._settled]
        gone = self._replaced_nodes(roots, removed, [*ours, *results])
        plain: list[Node] = []
        moved: set[Node] = set()
        for node in ours:
            twins = [n for n in gone if n.key == node.key]
            if twins:
                node.origins = Origins.union(n.origins for n in twins)
                moved.update(twins)
            else:
                plain.append(node)
        rest = Origins.union(n.origins for n in gone if n not in moved)
        for node in plain:
            node.origins = rest or self._origins
        if rest and not any(n.key != "Constant" for n in plain):
            for node in dict.fromkeys(results):
                if node.key not in ("Constant", "Input"):
                    node.origins = Origins.union([node.origins, rest])
        self._settled.update(ours)

    def _replaced_nodes(
        self, roots: Sequence[Node], removed: dict[Node, list[Node]], new: Sequence[Node]
    ) -> list[Node]:
        """The nodes that ``new`` replaces, in topological order.

        These are the roots, and removed nodes between them and the values that ``new`` is computed
        from. Other removed nodes had no part in the result, such as a branch that is not taken.
        """
        used = {p for n in new if n in self.graph for p in self.graph.in_edges(n)}.union(new)
        between: set[Node] = set()
        for node in reversed(removed):
            if node in self._sources or any(p in used or p in between for p in removed[node]):
                between.add(node)
        gone = [n for n in reversed(removed) if n in between]
        return gone + [n for n in dict.fromkeys(roots) if n not in between]


def _heirs(
    removed: Mapping[Node, list[Node]], living: Mapping[Node, Node], heirs: Mapping[Node, Node]
) -> dict[Node, list[Node]]:
    """The heirs, not removed themselves, of each removed operation that has no such heir given.

    They are those of its users, and of its given heir.
    """
    after: dict[Node, list[Node]] = {
        n: [heirs[n]] if heirs.get(n) in removed else []
        for n in removed
        if n not in living and n.key != "Constant"
    }
    for node, producers in removed.items():
        for producer in producers:
            if producer in after:
                after[producer].append(node)
    found: dict[Node, list[Node]] = {}
    for start in after:
        stack = [start]
        while stack:
            node = stack[-1]
            waiting = [n for n in after[node] if n in after and n not in found]
            if waiting and node not in found:
                stack += waiting
                continue
            stack.pop()
            above = (
                found[n] if n in after else [living[n]]
                for n in after[node]
                if n in after or n in living
            )
            found[node] = list(dict.fromkeys(h for hs in above for h in hs))
    return found


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


__all__ = ["Editor", "Listener", "can_replace"]
