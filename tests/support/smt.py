"""Proofs that a rewritten graph computes what the graph before it did, for every input.

A rule is applied to a small graph, and z3 is asked for inputs and an index at which the results
before and after differ. Inputs are functions from indices to elements. Elementwise ops either have
their meaning in z3's theories, or are functions of which nothing is known; ops that move elements
are functions of indices.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import z3

from graphkiln.ir.dims import Dim
from graphkiln.ir.graph import Graph, Node, Value
from graphkiln.ir.registry import attribute, has_trait
from graphkiln.passes.base import PassContext, pass_class
from graphkiln.passes.catalog import load
from graphkiln.passes.pattern import Rule, rewrite

from . import smt_scalars
from .graph_text import graph_of
from .smt_index import Index, Sizes

Term = Any

ELEMENT = z3.DeclareSort("Element")
"""What elements are where only their movement matters."""

LIMIT = 120_000
"""Milliseconds for one question."""


@dataclass
class Meaning:
    """The elements of a graph's values; ``moving`` treats elementwise ops as unknown functions."""

    sizes: Sizes
    moving: bool
    _functions: dict[object, Any] = field(default_factory=dict)

    def element(self, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
        """Element ``at`` of a value."""
        node = value.node
        if value.constant is not None:
            return self._constant(value, at)
        if value in graph.inputs:
            return self._function(("input", value.name), len(at), self._sort(value))(
                *self._terms(at)
            )
        move = MOVES.get(node.key)
        if move is not None:
            return move(self, graph, node, at)
        if has_trait(node, "elementwise") or node.key in ("QuantizeLinear", "DequantizeLinear"):
            return self._elementwise(graph, node, at)
        raise NotImplementedError(node.key)

    def _terms(self, at: Sequence[Index]) -> list[Term]:
        return [self.sizes.value(i) for i in at]

    def _sort(self, value: Value) -> Any:
        return ELEMENT if self.moving else smt_scalars.sort_of(value.tensor_type.dtype)

    def _function(self, key: object, arity: int, sort: Any, of: Any = None) -> Any:
        domain = [of or z3.IntSort()] * arity
        if key not in self._functions:
            name = f"f{len(self._functions)}"
            constant = None if arity else z3.Const(name, sort)
            self._functions[key] = z3.Function(name, *domain, sort) if arity else lambda: constant
        return self._functions[key]

    def _literal(self, number: Any, value: Value) -> Term:
        if not self.moving:
            return smt_scalars.literal(number, value.tensor_type.dtype)
        key = ("number", value.dtype, np.asarray(number).tobytes())
        return self._function(key, 0, ELEMENT)()

    def _constant(self, value: Value, at: Sequence[Index]) -> Term:
        array = value.constant
        assert array is not None
        assert array.size
        places = list(np.ndindex(array.shape))
        result = self._literal(array[places[-1]], value)
        for place in places[:-1]:
            here = [self.sizes.value(i) == p for i, p in zip(at, place, strict=True)]
            result = z3.If(z3.And(here), self._literal(array[place], value), result)
        return result

    def _elementwise(self, graph: Graph, node: Node, at: Sequence[Index]) -> Term:
        inputs = graph.inputs_of(node)
        operands = [None if v is None else self._operand(graph, v, at) for v in inputs]
        types = [v.tensor_type.dtype for v in inputs if v is not None]
        if not self.moving:
            found = smt_scalars.apply(node, types, operands)
            if found is not None:
                return found
            sort = self._sort(node.out())
            given = [o for o in operands if o is not None]
            key = (node.key, repr(sorted(node.attrs.items())))
            return self._function(key, 1, sort, given[0].sort())(*given)
        given = [o for o in operands if o is not None]
        key = (node.key, repr(sorted(node.attrs.items())), len(given))
        return self._function(key, len(given), ELEMENT, ELEMENT)(*given)

    def _operand(self, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
        """An operand that is broadcast to where ``at`` points."""
        own = at[len(at) - value.rank :] if value.rank else []
        return self.element(graph, value, _broadcast(own, value.shape))


def _broadcast(at: Sequence[Index], shape: Sequence[Dim]) -> list[Index]:
    zero = z3.IntVal(0)
    return [Index.of(zero, 1) if d == 1 else i for i, d in zip(at, shape, strict=True)]


# ---- movement ------------------------------------------------------------------------------------


def _source(graph: Graph, node: Node) -> Value:
    return graph.required_inputs(node)[0]


def _reshape(m: Meaning, graph: Graph, node: Node, at: Sequence[Index]) -> Term:
    x = _source(graph, node)
    return m.element(graph, x, m.sizes.view(at, node.out().shape, x.shape))


def _transpose(m: Meaning, graph: Graph, node: Node, at: Sequence[Index]) -> Term:
    x = _source(graph, node)
    perm = attribute(node, "perm") or tuple(reversed(range(x.rank)))
    own: list[Any] = [None] * x.rank
    for to, source in enumerate(perm):
        own[source % x.rank] = at[to]
    return m.element(graph, x, own)


def _slice(m: Meaning, graph: Graph, node: Node, at: Sequence[Index]) -> Term:
    x = _source(graph, node)
    own = []
    for i, start, step, dim in zip(at, node.attrs["starts"], node.attrs["steps"], x.shape,
                                   strict=True):  # fmt: skip
        if start == 0 and step == 1:
            own.append(i)
        else:
            place = m.sizes.term(start) + m.sizes.term(step) * m.sizes.value(i)
            own.append(Index.of(place, dim))
    return m.element(graph, x, own)


def _expand(m: Meaning, graph: Graph, node: Node, at: Sequence[Index]) -> Term:
    x = _source(graph, node)
    own = at[len(at) - x.rank :] if x.rank else []
    return m.element(graph, x, _broadcast(own, x.shape))


def _concat(m: Meaning, graph: Graph, node: Node, at: Sequence[Index]) -> Term:
    axis = int(attribute(node, "axis"))
    place = m.sizes.value(at[axis])
    parts = graph.required_inputs(node)
    choices, start = [], z3.IntVal(0)
    for part in parts:
        own = [*at]
        own[axis] = Index.of(place - start, part.shape[axis])
        start = start + m.sizes.term(part.shape[axis])
        choices.append((place < start, m.element(graph, part, own)))
    result = choices[-1][1]
    for here, element in reversed(choices[:-1]):
        result = z3.If(here, element, result)
    return result


def _split(m: Meaning, graph: Graph, node: Node, at: Sequence[Index], output: int = 0) -> Term:
    x, axis = _source(graph, node), int(attribute(node, "axis"))
    start = sum((m.sizes.term(v.shape[axis]) for v in node.values[:output]), z3.IntVal(0))
    own = [*at]
    own[axis] = Index.of(m.sizes.value(at[axis]) + start, x.shape[axis])
    return m.element(graph, x, own)


def _gather(m: Meaning, graph: Graph, node: Node, at: Sequence[Index]) -> Term:
    x, indices = graph.required_inputs(node)
    axis = int(attribute(node, "axis")) % x.rank
    table, size = indices.constant, m.sizes.term(x.shape[axis])
    assert table is not None
    around = at[axis : axis + indices.rank]
    places = list(np.ndindex(table.shape))
    chosen: Any = None
    for place in reversed(places):
        number = int(table[place])
        term = z3.IntVal(number) if number >= 0 else size + number
        here = [m.sizes.value(i) == p for i, p in zip(around, place, strict=True)]
        chosen = term if chosen is None else z3.If(z3.And(here), term, chosen)
    own = [*at[:axis], Index.of(chosen, x.shape[axis]), *at[axis + indices.rank :]]
    return m.element(graph, x, own)


def _pad(m: Meaning, graph: Graph, node: Node, at: Sequence[Index]) -> Term:
    x, pads = graph.required_inputs(node)[:2]
    assert pads.constant is not None
    begins = [int(p) for p in pads.constant[: x.rank]]
    places = [m.sizes.value(i) - b for i, b in zip(at, begins, strict=True)]
    dims = [m.sizes.term(d) for d in x.shape]
    inside = [z3.And(p >= 0, p < d) for p, d in zip(places, dims, strict=True)]
    own = [Index.of(p, d) for p, d in zip(places, x.shape, strict=True)]
    filled = m._function("padding", 0, m._sort(x))()
    return z3.If(z3.And(inside), m.element(graph, x, own), filled)


def _tile(m: Meaning, graph: Graph, node: Node, at: Sequence[Index]) -> Term:
    x = _source(graph, node)
    own = []
    for i, dim in zip(at, x.shape, strict=True):
        turn, place, size = m.sizes.fresh("t"), m.sizes.fresh("p"), m.sizes.term(dim)
        m.sizes.facts += [m.sizes.value(i) == turn * size + place, 0 <= place, place < size]
        m.sizes.facts.append(turn >= 0)
        own.append(Index.of(place, dim))
    return m.element(graph, x, own)


def _reduce(m: Meaning, graph: Graph, node: Node, at: Sequence[Index]) -> Term:
    """The reduction of one element is that element; any other is a function of where it is."""
    x = _source(graph, node)
    given = graph.inputs_of(node)[1:]
    axes = [a % x.rank for a in given[0].constant] if given and given[0] else [*range(x.rank)]
    kept: dict[int, Index] = {}
    left = iter(at)
    for axis in range(x.rank):
        if axis in axes:
            kept[axis] = Index.of(z3.IntVal(0), 1)
            if attribute(node, "keepdims"):
                next(left)
        else:
            kept[axis] = next(left)
    if all(x.shape[a] == 1 for a in axes):
        return m.element(graph, x, [kept[a] for a in range(x.rank)])
    assert x in graph.inputs
    terms = [m.sizes.value(kept[a]) for a in range(x.rank) if a not in axes]
    op = "ReduceSum" if node.op == "ReduceMean" else node.op
    key = (op, x.name, tuple(sorted(axes)))
    total = m._function(key, len(terms), m._sort(node.out()))(*terms)
    if node.op != "ReduceMean" or m.moving:
        return total
    t, number = x.tensor_type.dtype, 1
    for a in axes:
        number *= int(x.shape[a])
    return smt_scalars.MEANINGS["Div"](t, total, smt_scalars.literal(number, t))


MOVES = {
    "kiln.Reshape": _reshape, "kiln.Slice": _slice, "kiln.Expand": _expand,
    "Transpose": _transpose, "Concat": _concat, "Split": _split, "Gather": _gather, "Pad": _pad,
    "Tile": _tile, "Dropout": _reshape, "CastLike": _reshape,
    **{f"Reduce{r}": _reduce for r in ("Max", "Min", "Prod", "Sum", "Mean", "L1", "L2")},
}  # fmt: skip


# ---- proofs --------------------------------------------------------------------------------------


PROVED: set[str] = set()
"""The rules that this process went through a proof of."""


def rules_named(name: str, pass_name: str = "simplify") -> list[Rule]:
    load()
    cls = pass_class(pass_name)
    assert cls is not None
    return [rule for rule in cls.rules if rule.name == name]


def applied(name: str, text: str, pass_name: str = "simplify") -> tuple[Graph, Graph]:
    """A graph before and after a rule, which must have matched."""
    before, after = graph_of(text), graph_of(text)
    counts = rewrite(after, rules_named(name, pass_name), PassContext())
    assert counts[name], f"{name} did not match"
    return before, after


def prove(name: str, text: str, *, moving: bool = False, pass_name: str = "simplify") -> None:
    """The rule keeps every element of every result of the graph ``text``.

    Raises AssertionError with an example where it does not.
    """
    before, after = applied(name, text, pass_name)
    PROVED.add(name)
    for i, (old, new) in enumerate(zip(before.outputs, after.outputs, strict=True)):
        assert old.shape == new.shape
        meaning = Meaning(Sizes(), moving)
        at = meaning.sizes.within(old.shape)
        left = meaning.element(before, old, at)
        right = meaning.element(after, new, at)
        refute(z3.Not(left == right), meaning.sizes.facts, f"{name}, result {i}")


def refute(claim: Any, facts: Sequence[Any], told: str) -> None:
    """Assert that ``claim`` contradicts ``facts``."""
    solver = z3.Solver()
    solver.set("timeout", LIMIT)
    solver.add(*facts)
    solver.add(claim)
    found = solver.check()
    assert found == z3.unsat, f"{told}: {found} {solver.model() if found == z3.sat else ''}"
