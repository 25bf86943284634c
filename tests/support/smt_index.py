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

from graphkiln.ir.dims import Dim, evaluate, free_symbols, known_equal

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
    """The symbols of a proof as z3 integers, and the facts that hold of all indices."""

    symbols: dict[str, Term] = field(default_factory=dict)
    facts: list[Term] = field(default_factory=list)
    _serial: Any = field(default_factory=count)

    def term(self, dim: Dim) -> Term:
        """A size as a term; sizes are 0 or greater."""
        for name in free_symbols(dim) - self.symbols.keys():
            self.symbols[name] = z3.Int(name)
            self.facts.append(self.symbols[name] >= 0)
        value = evaluate(dim, self.symbols)
        return z3.IntVal(value) if isinstance(value, int) else value

    def fresh(self, name: str) -> Term:
        return z3.Int(f"{name}_{next(self._serial)}")

    def within(self, shape: Sequence[Dim]) -> list[Index]:
        """An arbitrary index of a tensor of ``shape``."""
        index = []
        for dim in shape:
            at = self.fresh("i")
            self.facts += [at >= 0, at < self.term(dim)]
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
        quotient, rest = self.fresh("q"), self.fresh("r")
        divisor = self.term(by)
        self.facts += [digit == quotient * divisor + rest, 0 <= rest, rest < divisor, 0 <= quotient]
        count_of = extent // by
        assert known_equal(count_of * by, extent), f"{by} does not divide {extent}"
        self.facts.append(quotient < self.term(count_of))
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
            else:
                high, low = self.split(at, extent, missing)
                rest.append(high)
                taken.insert(0, low)
        return taken
