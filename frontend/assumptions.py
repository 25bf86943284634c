"""Assumptions about conditions that decide a rank: import takes one branch and adds a guard.

Exporters write ``squeeze(x, i)`` as ``If(shape[i] == 1)`` with branches of different rank, which
no static type covers. If the rest of the model needs to know the rank, one branch replaces the
node, and its inputs go through ``kiln.Require``, which fails at run time if the condition is not as
assumed:

    If(c) {then: Squeeze(x)} {else: Identity(x)}  ->  Squeeze(kiln.Require(x, c))

Assumptions that fit are found by search: see :mod:`.specialisation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import onnx

from ..ir.conditions import Condition, Relation
from ..ir.dims import Dim
from ..ir.graph import Graph, Node, Value
from ..ir.origins import Origins
from ..ir.types import TensorType
from .errors import ImportFault, shorten
from .scope import Builder, Scope, Slot

_THROUGH = ("Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class Question:
    """The question of an If's condition: is ``a == b``, or if it compares no dims, is ``root``
    true?

    ``negated``: the If's condition is the opposite. ``key`` is equal for equal questions. ``rare``:
    numbers of the run are compared, which are seldom equal.
    """

    key: str
    negated: bool
    dims: tuple[Dim, Dim] | None
    rare: bool = False

    @property
    def usual(self) -> bool:
        """The answer that is tried first: exporters write the usual case in the first branch."""
        return not self.rare and not self.negated

    def assumption(self, answer: bool) -> str:
        """The statement, for messages, that is true if the answer is ``answer``."""
        if self.dims is None:
            name = shorten(self.key.partition(":")[2], 120)
            return f"a condition {name!r} that is {'true' if answer else 'false'}"
        return f"{self.dims[0]} {'==' if answer else '!='} {self.dims[1]}"


def condition_of(builder: Builder, value: Value) -> Question:
    """The question that a bool value answers."""
    negated = False
    while True:
        node, graph = value.node, builder.graph
        if node.key == "Input" and builder.parent is not None:
            outer = builder.outer(value)
            if outer is None:
                break
            builder, value = builder.parent, outer
            continue
        source = graph.input(node, 0) if node.key in _THROUGH or node.key == "Not" else None
        if source is None or not isinstance(source.type, TensorType) or source.dtype != "bool":
            break
        negated ^= node.key == "Not"
        value = source
    compares = value.node.key == "Equal"
    dims = _compared(builder, value.node) if compares else None
    if dims is not None:
        return Question(f"{dims[0]} == {dims[1]}", negated, dims)
    return Question(f"{builder.graph.name}:{value.name}", negated, None, rare=compares)


def _compared(builder: Builder, node: Node) -> tuple[Dim, Dim] | None:
    """The two dims that an Equal compares, a constant last."""
    dims = []
    for value in builder.graph.required_inputs(node):
        array = builder.known.get(value)
        if array is None or array.size != 1:
            return None
        dim = array.reshape(-1)[0]
        dims.append(int(dim) if isinstance(dim, np.integer) else dim)
    if not all(isinstance(d, Dim) for d in dims):
        return None
    a, b = dims
    return (b, a) if isinstance(a, int) else (a, b)


@dataclass
class Assumptions:
    """The answers that one import assumes: ``given`` ones, and those that it ``made`` on the way.

    ``blame`` are the keys of the answers that led to the import's failure, or to results of another
    rank than the file declares.
    """

    given: Mapping[str, bool]
    made: dict[str, bool] = field(default_factory=dict)
    blame: set[str] = field(default_factory=set)
    _owners: dict[Node, set[str]] = field(default_factory=dict)
    _inside: dict[Graph, set[str]] = field(default_factory=dict)

    def find(self, key: str) -> bool | None:
        return self.given.get(key, self.made.get(key))

    def make(self, key: str, usual: bool) -> bool:
        """Answer a new question by its usual answer."""
        return self.made.setdefault(key, usual)

    def note(self, key: str, builder: Builder, values: Iterable[Slot]) -> None:
        """Record that ``values`` of ``builder`` depend on the answer to ``key``."""
        for value in values:
            if isinstance(value, Value):
                self._owners.setdefault(value.node, set()).add(key)
        around: Builder | None = builder
        while around is not None:
            self._inside.setdefault(around.graph, set()).add(key)
            around = around.parent

    def accuse(self, scope: Scope, proto: onnx.NodeProto) -> None:
        """Blame the answers that the inputs of a failed node depend on."""
        everything = {*self.given, *self.made}
        if any(a.HasField("g") for a in proto.attribute):
            self.blame = everything
            return
        try:
            slots = [scope.lookup(name) for name in proto.input if name]
        except ImportFault:
            slots = []
        found = self._causes(scope.builder, [s for s in slots if isinstance(s, Value)])
        self.blame = everything if found is None else found

    def compare(self, builder: Builder, result: Value, declared: onnx.TypeProto) -> None:
        """Blame the answers by which a result of the model has another rank than declared."""
        rank = len(declared.tensor_type.shape.dim)
        # Exporters write an empty shape if they do not know it.
        if rank and _rank(result) not in (None, rank):
            self.blame |= self._causes(builder, [result]) or set()

    def _causes(self, builder: Builder, values: Sequence[Value]) -> set[str] | None:
        """The answers that values depend on; None if a loop's carried value makes that unclear."""
        found: set[str] = set()
        seen: set[Node] = set()
        work = [(builder, v.node) for v in values]
        while work:
            at, node = work.pop()
            if node in seen:
                continue
            seen.add(node)
            found |= self._owners.get(node, set())
            for _, body in at.graph.bodies(node):
                found |= self._inside.get(body, set())
            if node.key == "Input" and at.parent is not None:
                outer = at.outer(node.out())
                if outer is None:
                    return None
                work.append((at.parent, outer.node))
            work += [(at, v.node) for v in at.graph.inputs_of(node) if v is not None]
        return found


def disagree(node: Node) -> bool:
    """Is this an If whose branches return tensors of different ranks?"""
    then, other = (node.attrs[name] for name in ("then_branch", "else_branch"))
    assert isinstance(then, Graph) and isinstance(other, Graph)
    pairs = zip(then.outputs, other.outputs, strict=True)
    return any(_rank(a) != _rank(b) for a, b in pairs if None not in (_rank(a), _rank(b)))


def _rank(value: Value) -> int | None:
    t = value.type
    return len(t.shape) if isinstance(t, TensorType) and t.shape is not None else None


def equality(
    question: Question, answer: bool, node: str, branch: str, origins: Origins
) -> list[Condition]:
    """The dims that an answer makes equal, if any."""
    if question.dims is None or not answer:
        return []
    return [Condition(Relation.EQUAL, *question.dims, node, f"its {branch} taken", origins)]


def guard_messages(graph: Graph) -> Iterator[str]:
    """The assumptions of the guards in a graph and its bodies, each once."""
    seen: set[str] = set()
    for current in graph.walk():
        for node in current.nx:
            message = node.attrs.get("message") if node.key == "kiln.Require" else None
            if isinstance(message, str) and message not in seen:
                seen.add(message)
                yield message
