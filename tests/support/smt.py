"""Proofs that a rewritten graph computes what the graph before it did, for every input.

A rule is applied to a small graph, and z3 is asked for inputs and an index at which the results
before and after differ. Inputs are functions from indices to elements. Elementwise ops either have
their meaning in z3's theories, or are functions of which nothing is known; ops that move elements
are functions of indices.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import z3

from graphkiln.ir.graph import Graph, Node, Value
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.registry import has_trait
from graphkiln.ir.traits import Trait
from graphkiln.passes.base import Pass, PassContext, pass_class
from graphkiln.passes.catalog import load
from graphkiln.passes.claims import Family
from graphkiln.passes.manager import PassManager
from graphkiln.passes.pattern import rewrite

from . import smt_scalars
from .graph_text import graph_of
from .hard_values import same_bits
from .smt_blocks import BLOCKS
from .smt_index import Index, Sizes
from .smt_views import MOVES, broadcast
from .toy_layouts import toy_context

Term = Any

ELEMENT = z3.DeclareSort("Element")
"""What elements are where only their movement matters."""

LIMIT = 120_000
"""Milliseconds for one question."""


@dataclass
class Meaning:
    """The elements of a graph's values; ``moving`` treats elementwise ops as unknown functions.

    ``goals`` are further claims that have to hold, such as sizes that inference found.
    """

    sizes: Sizes
    moving: bool
    goals: list[Term] = field(default_factory=list)
    _functions: dict[object, Any] = field(default_factory=dict)

    def element(self, graph: Graph, value: Value, at: Sequence[Index]) -> Term:
        """Element ``at`` of a value."""
        node = value.node
        if value.constant is not None:
            return self._constant(value, at)
        if value in graph.inputs:
            return self.function(("input", value.name), len(at), self.sort(value))(*self._terms(at))
        move = MOVES.get(node.key) or BLOCKS.get(node.key)
        if move is not None:
            return move(self, graph, value, at)
        if has_trait(node, Trait.ELEMENTWISE) or node.key in ("QuantizeLinear", "DequantizeLinear"):
            return self._elementwise(graph, node, at)
        raise AssertionError(f"{node.key} has no meaning in z3 here")

    def _terms(self, at: Sequence[Index]) -> list[Term]:
        return [self.sizes.value(i) for i in at]

    def sort(self, value: Value) -> Any:
        return ELEMENT if self.moving else smt_scalars.sort_of(value.tensor_type.dtype)

    def function(self, key: object, arity: int, sort: Any, of: Any = None) -> Any:
        domain = [z3.IntSort() if of is None else of] * arity
        if key not in self._functions:
            name = f"f{len(self._functions)}"
            constant = None if arity else z3.Const(name, sort)
            self._functions[key] = z3.Function(name, *domain, sort) if arity else lambda: constant
        return self._functions[key]

    def literal(self, number: Any, value: Value) -> Term:
        if not self.moving:
            return smt_scalars.literal(number, value.tensor_type.dtype)
        key = ("number", value.dtype, np.asarray(number).tobytes())
        return self.function(key, 0, ELEMENT)()

    def _constant(self, value: Value, at: Sequence[Index]) -> Term:
        array = value.constant
        assert array is not None
        assert array.size
        places = list(np.ndindex(array.shape))
        result = self.literal(array[places[-1]], value)
        for place in places[:-1]:
            here = [self.sizes.value(i) == p for i, p in zip(at, place, strict=True)]
            result = z3.If(z3.And(here), self.literal(array[place], value), result)
        return result

    def _elementwise(self, graph: Graph, node: Node, at: Sequence[Index]) -> Term:
        inputs = graph.inputs_of(node)
        shape = node.out().shape
        operands = [None if v is None else self._operand(graph, v, at, shape) for v in inputs]
        types = [v.tensor_type.dtype for v in inputs if v is not None]
        if not self.moving:
            found = smt_scalars.apply(node, types, operands)
            if found is not None:
                return found
            sort = self.sort(node.out())
            given = [o for o in operands if o is not None]
            key = (node.key, repr(sorted(node.attrs.items())))
            return self.function(key, 1, sort, given[0].sort())(*given)
        given = [o for o in operands if o is not None]
        places = tuple(o is not None for o in operands)
        key = (node.key, repr(sorted(node.attrs.items())), places, node.out().dtype)
        return self.function(key, len(given), ELEMENT, ELEMENT)(*given)

    def _operand(self, graph: Graph, value: Value, at: Sequence[Index], shape: Any) -> Term:
        """An operand that is broadcast to where ``at`` points in a result of ``shape``."""
        return self.element(graph, value, broadcast(self, at, shape, value.shape))


# ---- proofs --------------------------------------------------------------------------------------


PROVED: set[tuple[str, str]] = set()
"""The rules, by pass and name, that this process went through a proof of."""


def applied(name: str, text: str, pass_name: str = "simplify") -> tuple[Graph, Graph]:
    """A graph before and after a rule, or an edit of a pass without rules, which must have run."""
    load()
    cls = pass_class(pass_name)
    assert cls is not None
    before, after = graph_of(text), graph_of(text)
    rules = [rule for rule in cls.rules if rule.name == name]
    counts = rewrite(after, rules, PassContext()) if rules else _edited(cls(), after)
    assert counts.get(name), f"{name} did not match"
    return before, after


def _edited(p: Pass, graph: Graph) -> Mapping[str, int]:
    return PassManager([p]).run_pass(p, graph, toy_context()).details


def prove(name: str, text: str, *, moving: bool = False, pass_name: str = "simplify") -> None:
    """The rule keeps every element of every result of the graph ``text``.

    Raises AssertionError with an example where it does not.
    """
    before, after = applied(name, text, pass_name)
    refute_difference(before, after, name, moving=moving)
    PROVED.add((pass_name, name))


def exhaust(name: str, text: str) -> None:
    """:func:`prove` for graphs of one float16 ``x`` by trying all of its numbers."""
    before, after = applied(name, text)
    feeds = {"x": np.arange(2**16, dtype=np.uint16).view(np.float16)}
    with np.errstate(all="ignore"):
        for old, new in zip(evaluate(before, feeds), evaluate(after, feeds), strict=True):
            same_bits(new, old)
    PROVED.add(("simplify", name))


def refute_difference(before: Graph, after: Graph, name: str, *, moving: bool) -> None:
    """Assert that two graphs have the same elements, whatever their inputs and open dims are."""
    for i, (old, new) in enumerate(zip(before.outputs, after.outputs, strict=True)):
        assert old.type == new.type
        meaning = Meaning(Sizes(), moving)
        at = meaning.sizes.within(old.shape)
        left = meaning.element(before, old, at)
        right = meaning.element(after, new, at)
        facts, told = meaning.sizes.facts, f"{name}, result {i}"
        refute(z3.Not(z3.And(meaning.goals)), facts, told)
        if 0 not in old.shape:
            refute(z3.Not(left == right), [*facts, *meaning.sizes.ranges], told)


def refute(claim: Any, facts: Sequence[Any], told: str) -> None:
    """Assert that ``claim`` contradicts ``facts``, which do not contradict each other."""
    # Two solvers: one that is asked twice proves less.
    found, model = _asked([*facts, claim], LIMIT)
    assert found == z3.unsat, f"{told}: {found} {model or ''}"
    possible = not facts or _asked(facts, LIMIT // 120)[0] != z3.unsat
    assert possible, f"{told}: there is no such index"


def _asked(claims: Sequence[Any], limit: int) -> tuple[Any, Any]:
    solver = z3.Solver()
    solver.set("timeout", limit)
    solver.add(*claims)
    found = solver.check()
    return found, solver.model() if found == z3.sat else None


def unproved(pass_names: Sequence[str], family: Family) -> set[tuple[str, str]]:
    """The rules of a family that are called proved, without a proof in this process."""
    load()
    called = {
        (name, rule)
        for name in pass_names
        for rule, claim in pass_class(name).promises()  # type: ignore[union-attr]
        if claim.is_proved and claim.family is family
    }
    return called - PROVED
