"""Transposes.

Transpose(Transpose(x, p), q) = Transpose(x, p[q])    Transpose(x, identity) = x
Transpose(x) that only moves dims of 1 = Reshape(x)
Transpose(f(Transpose(x, p), ...), q) = f(x, ...)     f elementwise, p[q] the identity
Reshape(Transpose(Reshape(x), p)) = Transpose(x, p')  where the views only merge and split
                                                      leading axes that p leaves in place
Transpose(Reshape(Transpose(x, p)), q) = Reshape(Transpose(x, p'))
                                                      where the view adds or drops dims of 1
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir.axes.query import broadcasts
from ...ir.edit import Editor
from ...ir.graph import Graph, Node, Value
from ...ir.registry import attribute
from ..claims import moved
from ..pattern import Match, Op, Rule, Var
from ..queries import sole_consumer

Perm = tuple[int, ...]

_LIMIT = 24
"""Most elementwise nodes that a transpose is moved across."""


def perm_of(node: Node, rank: int) -> Perm:
    """The permutation of a Transpose, axes counted from the front."""
    perm = attribute(node, "perm")
    if perm is None:
        return tuple(reversed(range(rank)))
    return tuple(int(a) % rank for a in perm)


def compose(p: Sequence[int], q: Sequence[int]) -> Perm:
    """The permutation of a transpose by ``p`` and then by ``q``."""
    return tuple(p[i] for i in q)


def _identity(p: Sequence[int]) -> bool:
    return list(p) == list(range(len(p)))


def _x(m: Match, _: Editor) -> Value:
    return m["x"]


def _does_nothing(m: Match) -> str | None:
    return None if _identity(perm_of(m.root, m["x"].rank)) else "it permutes"


def _moves_only_ones(m: Match) -> str | None:
    x = m["x"]
    kept = [a for a in perm_of(m.root, x.rank) if x.shape[a] != 1]
    return None if kept == sorted(kept) else "it permutes"


def _as_view(m: Match, r: Editor) -> Value:
    return r.op("kiln.Reshape", m["x"], shape=m.root.out().shape)


def _merged(m: Match, r: Editor) -> Value:
    rank = m["x"].rank
    perm = compose(perm_of(m.node("inner"), rank), perm_of(m.root, rank))
    return m["x"] if _identity(perm) else r.op("Transpose", m["x"], perm=perm)


# ---- between views -------------------------------------------------------------------------------


def _direct_perm(m: Match) -> Perm | None:
    """The permutation of ``x`` that has the effect of a transpose between views."""
    x, middle, out = m["x"], m.node("view").out(), m.root.out()
    perm = perm_of(m.node("transpose"), middle.rank)
    fixed = next((i for i, a in enumerate(perm) if i != a), len(perm))
    moved = middle.rank - fixed
    lead = x.rank - moved
    if lead < 0 or x.shape[lead:] != middle.shape[fixed:]:
        return None
    direct = (*range(lead), *(a - fixed + lead for a in perm[fixed:]))
    return direct if tuple(x.shape[a] for a in direct) == out.shape else None


def _between_views(m: Match) -> str | None:
    return None if _direct_perm(m) else "the views change axes that move"


def _directly(m: Match, r: Editor) -> Value:
    return r.op("Transpose", m["x"], perm=_direct_perm(m))


# ---- around views of dims of 1 -------------------------------------------------------------------


def _across_ones(m: Match) -> str | None:
    before, after = m.node("inner").out().shape, m.node("view").out().shape
    same = [d for d in before if d != 1] == [d for d in after if d != 1]
    return None if same else "the view changes more than dims of 1"


def _joined_across(m: Match, r: Editor) -> Value:
    before, after = m.node("inner").out().shape, m.node("view").out().shape
    # The axes of the first transpose's result for those axes of the view that are not 1.
    real = iter([i for i, d in enumerate(before) if d != 1])
    source = {i: next(real) for i, d in enumerate(after) if d != 1}
    ones = [i for i, d in enumerate(before) if d == 1]
    order = [source[i] for i in perm_of(m.root, len(after)) if i in source]
    perm = compose(perm_of(m.node("inner"), len(before)), (*ones, *order))
    return r.op("kiln.Reshape", r.op("Transpose", m["x"], perm=perm), shape=m.root.out().shape)


# ---- across elementwise ops ----------------------------------------------------------------------


class _Cone:
    """The elementwise nodes in front of a transpose that nothing else uses, and what they read."""

    def __init__(self, graph: Graph, root: Node, perm: Perm) -> None:
        self.graph = graph
        self.root = root
        self.perm = perm
        self.nodes: list[Node] = []
        self.leaves: list[Value] = []

    def collect(self) -> str | None:
        """Why the transpose cannot move up, or None."""
        top = self.graph.input(self.root, 0)
        work = [] if top is None else [top]
        removed = 0
        while work:
            value = work.pop()
            if self._inside(value):
                self.nodes.append(value.node)
                work.extend(v for v in self.graph.inputs_of(value.node) if v is not None)
                if len(self.nodes) > _LIMIT:
                    return "too many elementwise ops in between"
                continue
            self.leaves.append(value)
            if value.node.key == "Transpose":
                removed += _identity(compose(perm_of(value.node, len(self.perm)), self.perm))
            elif value.rank and (value.constant is None or value.rank > len(self.perm)):
                return f"{value.name!r} would have to be transposed instead"
        if not self.nodes or not removed:
            return "it would not remove a transpose"
        return None

    def _inside(self, value: Value) -> bool:
        node = value.node
        return (
            len(node.outputs) == 1
            and value.rank == len(self.perm)
            and sole_consumer(self.graph, value) is not None
            and broadcasts(self.graph, node)
        )

    def leaf(self, value: Value, r: Editor) -> Value:
        """The value that the moved nodes read in place of ``value``."""
        if value.rank == 0:
            return value
        if value.constant is not None:
            padded = value.constant.reshape((1,) * (len(self.perm) - value.rank) + value.shape)
            return r.constant(np.transpose(padded, self.perm), value.name)
        source = self.graph.input(value.node, 0)
        assert source is not None
        perm = compose(perm_of(value.node, len(self.perm)), self.perm)
        return source if _identity(perm) else r.op("Transpose", source, perm=perm)

    def rebuild(self, r: Editor) -> Value:
        done: dict[Value, Value] = {v: self.leaf(v, r) for v in self.leaves}
        position = {n: i for i, n in enumerate(_producers_first(self.graph, self.nodes))}
        for node in sorted(set(self.nodes), key=lambda n: position[n]):
            inputs = [None if v is None else done[v] for v in self.graph.inputs_of(node)]
            copy = r.node(node.op, inputs, dict(node.attrs), domain=node.domain)
            done[node.out()] = copy.out()
        top = self.graph.input(self.root, 0)
        assert top is not None
        return done[top]


def _producers_first(graph: Graph, nodes: list[Node]) -> list[Node]:
    """``nodes`` in topological order."""
    members, order = set(nodes), []
    seen: set[Node] = set()

    def visit(node: Node) -> None:
        if node in seen:
            return
        seen.add(node)
        for producer in graph.in_edges(node):
            if producer in members:
                visit(producer)
        order.append(node)

    for node in nodes:
        visit(node)
    return order


def _cone(m: Match) -> _Cone:
    return _Cone(m.graph, m.root, perm_of(m.root, m["x"].rank))


def _can_move(m: Match) -> str | None:
    if not broadcasts(m.graph, m["x"].node):
        return "its input is not elementwise"
    return _cone(m).collect()


def _move(m: Match, r: Editor) -> Value:
    cone = _cone(m)
    cone.collect()
    return cone.rebuild(r)


RULES = (
    Rule(
        "transpose-none",
        Op("Transpose", Var("x")),
        _x,
        _does_nothing,
        claim=moved("transpose(x, identity) = x"),
    ),
    Rule(
        "transpose-transpose",
        Op("Transpose", Op("Transpose", Var("x"), name="inner", shared=True)),
        _merged,
        claim=moved("transpose(transpose(x, p), q) = transpose(x, p[q])"),
    ),
    Rule(
        "transpose-view",
        Op("Transpose", Var("x")),
        _as_view,
        _moves_only_ones,
        claim=moved("transpose(x) = reshape(x), moving dims of 1"),
    ),
    Rule(
        "transpose-between-views",
        Op(
            "kiln.Reshape",
            Op(
                "Transpose",
                Op("kiln.Reshape", Var("x"), name="view", shared=True),
                name="transpose",
            ),
        ),
        _directly,
        _between_views,
        claim=moved("reshape(transpose(reshape(x), p)) = transpose(x, p')"),
    ),
    Rule(
        "transpose-around-ones",
        Op("Transpose", Op("kiln.Reshape", Op("Transpose", Var("x"), name="inner"), name="view")),
        _joined_across,
        _across_ones,
        claim=moved("transpose(reshape(transpose(x, p)), q) = reshape(transpose(x, p'))"),
    ),
    Rule(
        "transpose-across",
        Op("Transpose", Var("x")),
        _move,
        _can_move,
        claim=moved("transpose(f(transpose(x, p), y), q) = f(x, transpose(y, q)), p[q] = id"),
    ),
)

__all__ = ["RULES", "compose", "perm_of"]
