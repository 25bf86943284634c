"""Indices of tensors with open sizes in z3, and how views turn one into another.

A view keeps the position of an element in memory. Where both shapes split into groups of axes of
equal extent, it keeps the position in each group; a position is a list of digits (index, extent).
Digits are joined where the other shape has one axis for several, and split by division where it
has several for one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from math import prod
from typing import Any

import z3

from graphkiln.ir.dim_algebra import Broadcast, FloorDiv, Max, Min
from graphkiln.ir.dims import Atom, Dim, Symbol, SymExpr, free_symbols, known_equal

Term = Any
Digits = tuple[tuple[Term, Dim], ...]


@dataclass(frozen=True)
class Index:
    """An index along one axis: its digits, the most significant first."""

    digits: Digits

    @classmethod
    def of(cls, term: Term, extent: Dim) -> Index:
        return cls(((term, extent),))


@dataclass
class Sizes:
    """The symbols of a proof as z3 integers, the facts that hold of them and of indices, and the
    ranges of the indices that the proof is about."""

    symbols: dict[str, Term] = field(default_factory=dict)
    facts: list[Term] = field(default_factory=list)
    ranges: list[Term] = field(default_factory=list)
    _splits: dict[tuple[str, str], tuple[Term, Term]] = field(default_factory=dict)
    _serial: Any = field(default_factory=count)

    def term(self, dim: Dim) -> Term:
        """A size as a term; sizes are 0 or greater."""
        for name in free_symbols(dim) - self.symbols.keys():
            self.symbols[name] = z3.Int(name)
            self.facts.append(self.symbols[name] >= 0)
        if not isinstance(dim, SymExpr):
            return z3.IntVal(dim)
        return z3.Sum([c * z3.Product(*map(self._atom, m)) for m, c in dim.terms])

    def _atom(self, atom: Atom) -> Term:
        if isinstance(atom, Symbol):
            return self.symbols[atom.text]
        a, b = map(self.term, atom.args)
        if isinstance(atom, Max | Min):
            return z3.If(a >= b if isinstance(atom, Max) else a <= b, a, b)
        if isinstance(atom, Broadcast):
            return z3.If(a == 1, b, a)
        assert isinstance(atom.args[1], int) and atom.args[1] > 0, f"{atom} has an open divisor"
        return a / b if isinstance(atom, FloorDiv) else a % b

    def fresh(self, name: str) -> Term:
        return z3.Int(f"{name}_{next(self._serial)}")

    def within(self, shape: Sequence[Dim]) -> list[Index]:
        """An arbitrary index of a tensor of ``shape``."""
        index = []
        for dim in shape:
            at = self.fresh("i")
            self.ranges += [at >= 0, at < self.term(dim)]
            index.append(Index.of(at, dim))
        return index

    def value(self, index: Index) -> Term:
        """An index as one term."""
        total = index.digits[0][0]
        for at, extent in index.digits[1:]:
            total = total * self.term(extent) + at
        return total

    def split(self, digit: Term, extent: Dim, by: Dim) -> tuple[tuple[Term, Dim], tuple[Term, Dim]]:
        """A digit as the quotient and the remainder by ``by``, which divides ``extent``."""
        count_of = extent // by
        key = (digit.sexpr(), str(by))
        if key not in self._splits:
            self._splits[key] = self.fresh("q"), self.fresh("r")
        quotient, rest = self._splits[key]
        divisor = self.term(by)
        assert known_equal(count_of * by, extent), f"{by} does not divide {extent}"
        parts = [digit == quotient * divisor + rest, 0 <= rest, rest < divisor, 0 <= quotient]
        parts.append(quotient < self.term(count_of))
        # Of what is out of range, as in a part of a Concat that is not meant, nothing is known.
        self.facts.append(z3.Implies(z3.And(digit >= 0, digit < self.term(extent)), z3.And(parts)))
        return (quotient, count_of), (rest, by)

    # ---- views -------------------------------------------------------------------------------

    def view(
        self, index: Sequence[Index], source: Sequence[Dim], target: Sequence[Dim]
    ) -> list[Index]:
        """The index in shape ``target`` of the element at ``index`` in shape ``source``."""
        digits = [d for i, dim in zip(index, source, strict=True) if dim != 1 for d in i.digits]
        rest = list(digits)
        found: list[Index] = []
        for dim in reversed(target):
            if dim == 1:
                found.append(Index.of(z3.IntVal(0), 1))
                continue
            found.append(Index(tuple(self._take(rest, dim))))
        assert not rest, f"{source} and {target} have no groups of axes in common"
        return found[::-1]

    def _take(self, rest: list[tuple[Term, Dim]], dim: Dim) -> list[tuple[Term, Dim]]:
        """The last digits of ``rest`` (they are removed) that make up an axis of extent ``dim``."""
        taken: list[tuple[Term, Dim]] = []
        while not known_equal(prod((d for _, d in taken), start=1), dim):
            at, extent = rest.pop()
            missing = dim // prod((d for _, d in taken), start=1)
            if known_equal(extent, missing) or known_equal((missing // extent) * extent, missing):
                taken.insert(0, (at, extent))
            elif known_equal((extent // missing) * missing, extent):
                high, low = self.split(at, extent, missing)
                rest.append(high)
                taken.insert(0, low)
            else:  # neither divides the other: one digit of both may
                high_at, high_extent = rest.pop()
                rest.append((high_at * self.term(extent) + at, high_extent * extent))
        return taken
