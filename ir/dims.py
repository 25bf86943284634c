"""Symbolic dimensions of tensor shapes.

A dimension is a `Dim`: a plain `int`, or a `SymExpr` such as `2*N+1`, `(N+1)//2` or `max(N,3)`.
Build them with `sym`, the operators `+ - * // %`, `dim_max`, `dim_min`, `dim_broadcast` and
`ceil_div`; whatever is constant is an `int`. Equal structure compares and hashes equal. `str`
writes an expression and `parse_dim` reads it back:

    sum     := product (('+' | '-') product)*
    product := unary (('*' | '//' | '%') unary)*
    unary   := '-'* primary
    primary := integer | name | '(' sum ')' | ('max' | 'min' | 'broadcast') '(' sum ',' sum ')'

`//` and `%` round as in Python. Symbols stand for sizes, so they are never negative.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .dim_algebra import (
    MAX_DEPTH,
    Atom,
    Broadcast,
    Dim,
    DimError,
    FloorDiv,
    Max,
    Min,
    Mod,
    Symbol,
    SymExpr,
    from_atom,
    known_le,
    lone_atom,
    lower_bound,
    map_atoms,
    sym,
    terms_of,
    upper_bound,
)
from .dim_extrema import dim_broadcast, dim_max, dim_min

__all__ = [
    "Atom",
    "Broadcast",
    "Dim",
    "DimError",
    "FloorDiv",
    "Max",
    "Min",
    "Mod",
    "SymExpr",
    "Symbol",
    "ceil_div",
    "dim_broadcast",
    "dim_max",
    "dim_min",
    "divides",
    "evaluate",
    "free_symbols",
    "is_static",
    "known_equal",
    "known_le",
    "known_positive",
    "lower_bound",
    "parse_dim",
    "solve",
    "substitute",
    "sym",
    "symbol_name",
    "upper_bound",
]

# The text of an atom has brackets around its operands, and around itself inside a product.
_MAX_NESTING = 2 * MAX_DEPTH + 8
_CALLS = {"max": dim_max, "min": dim_min, "broadcast": dim_broadcast}
_TOKEN = re.compile(r"[0-9]+|[A-Za-z_][A-Za-z0-9_]*|//|[-+*%(),]")


def ceil_div(a: Dim, b: Dim) -> Dim:
    """`a / b` rounded up, for a positive `b`. Raises DimError where `b` is a constant below 1."""
    if isinstance(b, int) and b < 1:
        raise DimError(f"ceil_div needs a positive divisor, not {b}")
    return (a + b - 1) // b


def is_static(dim: Dim) -> bool:
    """True if the dimension is a plain int."""
    return isinstance(dim, int)


def symbol_name(dim: Dim) -> str | None:
    """The name of a dim that is a symbol and nothing else."""
    atom = lone_atom(dim)
    return atom.text if isinstance(atom, Symbol) else None


def free_symbols(dim: Dim) -> frozenset[str]:
    """The names of all symbols in the dimension."""
    names: set[str] = set()
    for monomial, _ in terms_of(dim):
        for atom in monomial:
            if isinstance(atom, Symbol):
                names.add(atom.text)
            for arg in atom.args:
                names |= free_symbols(arg)
    return frozenset(names)


def substitute(dim: Dim, bindings: Mapping[str, Dim]) -> Dim:
    """Replaces symbols by dimensions, all at once; symbols without a binding stay.

    Raises DimError where a divisor becomes zero.
    """
    if isinstance(dim, int):
        return dim
    return map_atoms(dim, lambda atom: _substitute_atom(atom, bindings))


def evaluate(dim: Dim, bindings: Mapping[str, int]) -> int:
    """The value of a dimension. Raises DimError for an unbound symbol or a zero divisor."""
    if isinstance(dim, int):
        return dim
    total = 0
    for monomial, coeff in dim.terms:
        for atom in monomial:
            coeff *= _evaluate_atom(atom, bindings)
        total += coeff
    return total


def known_equal(a: Dim, b: Dim) -> bool:
    """True if `a == b` is proved for all symbols >= 0; False means "not proved"."""
    if a == b:
        return True
    difference = map_atoms(a - b, _expand_mod)
    return lower_bound(difference) == 0 and upper_bound(difference) == 0


def known_positive(dim: Dim) -> bool:
    """True if `dim >= 1` is proved for all symbols >= 0 (so False for a bare symbol)."""
    return known_le(1, dim)


def divides(k: int, dim: Dim) -> bool:
    """True if the int `k` is proved to divide `dim`; nothing but 0 is divisible by 0."""
    return dim == 0 if k == 0 else dim % k == 0


def solve(expr: Dim, value: int, symbol: str) -> int | None:
    """The non-negative size of `symbol` at which `expr` is `value`.

    None if there is none, or if `expr` is not of the form `a*symbol + b` with constants a, b.
    """
    if isinstance(expr, int):
        return None
    (monomial, coeff), *rest = expr.terms
    if monomial != (Symbol(symbol),) or any(other for other, _ in rest):
        return None
    size, remainder = divmod(value - sum(constant for _, constant in rest), coeff)
    return size if remainder == 0 and size >= 0 else None


def parse_dim(text: str) -> Dim:
    """The dimension written in `text`, the inverse of `str`; spaces are ignored.

    Raises DimError, with the position, for anything outside the grammar of this module.
    """
    return _Parser(text).parse()


def _expand_mod(atom: Atom) -> Dim:
    if not isinstance(atom, Mod):
        return from_atom(atom)
    a, b = atom.args
    return a - b * (a // b)


def _substitute_atom(atom: Atom, bindings: Mapping[str, Dim]) -> Dim:
    if isinstance(atom, Symbol):
        return bindings.get(atom.text, from_atom(atom))
    a, b = (substitute(arg, bindings) for arg in atom.args)
    return _apply(atom, a, b)


def _evaluate_atom(atom: Atom, bindings: Mapping[str, int]) -> int:
    if isinstance(atom, Symbol):
        try:
            return bindings[atom.text]
        except KeyError:
            raise DimError(f"symbol {atom.text} has no value") from None
    a, b = (evaluate(arg, bindings) for arg in atom.args)
    result = _apply(atom, a, b)
    assert isinstance(result, int), "constants stay constants"
    return result


def _apply(atom: Atom, a: Dim, b: Dim) -> Dim:
    if isinstance(atom, Max):
        return dim_max(a, b)
    if isinstance(atom, Min):
        return dim_min(a, b)
    if isinstance(atom, Broadcast):
        return _together(a, b)
    if b == 0:
        raise DimError(f"the divisor in {atom} is zero")
    return a // b if isinstance(atom, FloorDiv) else a % b


def _together(a: Dim, b: Dim) -> Dim:
    """The common size of two dims; of two numbers that do not fit, one of them.

    That they fit is a condition, which is recorded elsewhere.
    """
    if isinstance(a, int) and isinstance(b, int):
        return b if a == 1 else a
    return dim_broadcast(a, b)


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._split(text)
        self._next = 0
        self._nesting = 0

    def parse(self) -> Dim:
        dim = self._sum()
        if self._peek():
            raise self._error(f"unexpected {self._peek()!r}")
        return dim

    def _split(self, text: str) -> list[tuple[str, int]]:
        tokens, position = [], 0
        while position < len(text):
            if text[position] == " ":
                position += 1
                continue
            match = _TOKEN.match(text, position)
            if match is None:
                raise DimError(f"unexpected {text[position]!r} at position {position}")
            tokens.append((match.group(), position))
            position = match.end()
        return [*tokens, ("", len(text))]

    def _error(self, problem: str) -> DimError:
        position = self._tokens[min(self._next, len(self._tokens) - 1)][1]
        return DimError(f"{problem} at position {position} of dimension {self._text[:80]!r}")

    def _peek(self) -> str:
        return self._tokens[self._next][0]

    def _accept(self, *choices: str) -> str:
        token = self._peek()
        if token not in choices:
            return ""
        self._next += 1
        return token

    def _expect(self, token: str) -> None:
        if not self._accept(token):
            raise self._error(f"expected {token!r}, found {self._peek() or 'the end'!r}")

    def _sum(self) -> Dim:
        total = self._product()
        while operator := self._accept("+", "-"):
            term = self._product()
            total = total + term if operator == "+" else total - term
        return total

    def _product(self) -> Dim:
        result = self._unary()
        while operator := self._accept("*", "//", "%"):
            result = self._combine(operator, result, self._unary())
        return result

    def _combine(self, operator: str, a: Dim, b: Dim) -> Dim:
        if operator == "*":
            return a * b
        if b == 0:
            raise self._error("division by zero")
        return a // b if operator == "//" else a % b

    def _unary(self) -> Dim:
        negative = False
        while self._accept("-"):
            negative = not negative
        operand = self._primary()
        return -operand if negative else operand

    def _primary(self) -> Dim:
        token = self._peek()
        if token[:1].isdigit():
            return self._integer(token)
        if token[:1].isalpha() or token[:1] == "_":
            self._next += 1
            called = token in _CALLS and self._peek() == "("
            return self._extremum(token) if called else sym(token)
        return self._bracketed()[0]

    def _integer(self, token: str) -> int:
        try:
            value = int(token)
        except ValueError:
            raise self._error(f"an integer of {len(token)} digits is too long") from None
        self._next += 1
        return value

    def _extremum(self, name: str) -> Dim:
        a, b = self._bracketed(count=2)
        return _CALLS[name](a, b)

    def _bracketed(self, count: int = 1) -> list[Dim]:
        if self._peek() != "(":
            raise self._error(f"expected a dimension, found {self._peek() or 'the end'!r}")
        if self._nesting == _MAX_NESTING:
            raise self._error(f"more than {_MAX_NESTING} nested brackets")
        self._next += 1
        self._nesting += 1
        dims = [self._sum()]
        for _ in range(count - 1):
            self._expect(",")
            dims.append(self._sum())
        self._expect(")")
        self._nesting -= 1
        return dims
