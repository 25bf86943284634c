"""The algebra behind `dims`: integer polynomials over symbols, // and %, kept canonical.

A dimension (`Dim`) is a plain `int` or a `SymExpr`. Expressions are kept in a canonical form, so
equal structure compares and hashes equal, and whatever turns out constant is an `int` again.

Symbols are sizes: non-negative integers. Every rewrite used here is exact wherever the expression
it replaces is defined, that is, wherever no divisor is zero:

    (c*q + r) // c = q + r // c          (c*q + r) % c = r % c
    (g*x) // (g*y) = x // y              (g*x) % (g*y) = g * (x % y)
    (x // b + k) // c = (x + b*k) // (b*c)         for constants b, c > 0
    x // y = 0 and x % y = x             where 0 <= x < y is provable

Division and modulo follow Python: they round towards minus infinity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from numbers import Integral
from typing import NoReturn, TypeAlias

from ..errors import GraphkilnError, UndeterminedError

# Limits, so that hostile text and large products do not exhaust memory or the Python stack.
MAX_TERMS = 256
MAX_DEGREE = 64
MAX_DEPTH = 32
MAX_TEXT = 20_000

# A proof tries this many replacements in a row, and this many candidates for each.
_PROOF_STEPS = 3
_PROOF_WIDTH = 4
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class DimError(GraphkilnError, ValueError):
    """A dimension is malformed, too large, unbound, or divided by zero."""


class SymbolicError(UndeterminedError, TypeError):
    """A symbolic dimension was used as a number, which is only known at run time."""


@dataclass(frozen=True, slots=True)
class Atom:
    """An indivisible factor of a monomial; `text` identifies it, `low` and `high` bound it."""

    text: str
    args: tuple[Dim, ...] = field(default=(), compare=False, repr=False)
    low: int | None = field(default=0, compare=False, repr=False)
    high: int | None = field(default=None, compare=False, repr=False)
    depth: int = field(default=0, compare=False, repr=False)

    def __str__(self) -> str:
        return self.text


class Symbol(Atom):
    """A named size; `text` is the name."""

    __slots__ = ()


class FloorDiv(Atom):
    """`args[0] // args[1]`, rounded towards minus infinity."""

    __slots__ = ()


class Mod(Atom):
    """`args[0] % args[1]`, with the sign of the divisor."""

    __slots__ = ()


class Max(Atom):
    """The larger of two dimensions."""

    __slots__ = ()


class Min(Atom):
    """The smaller of two dimensions."""

    __slots__ = ()


class Broadcast(Atom):
    """The common size of two dimensions of which one is 1 or both are equal."""

    __slots__ = ()


Monomial: TypeAlias = tuple[Atom, ...]


@dataclass(frozen=True, slots=True, repr=False)
class SymExpr:
    """A non-constant integer polynomial in canonical form.

    `terms` holds (monomial, coefficient) pairs, highest degree first, then by name; a monomial is
    a sorted tuple of atoms, with repetition, and `()` is the constant term. Build expressions with
    `sym`, `parse_dim` and operators, never with the constructor.
    """

    terms: tuple[tuple[Monomial, int], ...]

    def __add__(self, other: Dim) -> Dim:
        right = _operand(other)
        return NotImplemented if right is None else _add(self, right)

    def __sub__(self, other: Dim) -> Dim:
        right = _operand(other)
        return NotImplemented if right is None else _add(self, _scale(right, -1))

    def __rsub__(self, other: Dim) -> Dim:
        left = _operand(other)
        return NotImplemented if left is None else _add(left, _scale(self, -1))

    def __mul__(self, other: Dim) -> Dim:
        right = _operand(other)
        return NotImplemented if right is None else _multiply(self, right)

    def __floordiv__(self, other: Dim) -> Dim:
        right = _operand(other)
        return NotImplemented if right is None else _floor_div(self, right)

    def __rfloordiv__(self, other: Dim) -> Dim:
        left = _operand(other)
        return NotImplemented if left is None else _floor_div(left, self)

    def __mod__(self, other: Dim) -> Dim:
        right = _operand(other)
        return NotImplemented if right is None else _modulo(self, right)

    def __rmod__(self, other: Dim) -> Dim:
        left = _operand(other)
        return NotImplemented if left is None else _modulo(left, self)

    def __neg__(self) -> Dim:
        return _scale(self, -1)

    def __pos__(self) -> Dim:
        return self

    __radd__ = __add__
    __rmul__ = __mul__

    def _unordered(self, other: object) -> NoReturn:
        raise SymbolicError(
            f"the order of symbolic dimension {self} and {other} is not known; "
            "use dim_max, dim_min or lower_bound"
        )

    __lt__ = __le__ = __gt__ = __ge__ = _unordered

    def __bool__(self) -> bool:
        raise SymbolicError(f"dimension {self} is symbolic: it has no truth value; compare with ==")

    def __index__(self) -> int:
        raise SymbolicError(
            f"dimension {self} is symbolic, not an integer; evaluate it with bindings"
        )

    __int__ = __index__

    def __str__(self) -> str:
        parts = [_term_text(monomial, coeff) for monomial, coeff in self.terms]
        return parts[0] + "".join(p if p[0] == "-" else "+" + p for p in parts[1:])

    __repr__ = __str__


Dim: TypeAlias = int | SymExpr
"""A size: an int, or an expression over symbols."""


# --- Construction -------------------------------------------------------------------------------


def sym(name: str) -> SymExpr:
    """The symbol `name`, a non-negative size. Raises DimError unless it is an ASCII identifier."""
    if not _NAME.fullmatch(name):
        raise DimError(f"{name!r} is not a symbol name: letters, digits and _, no digit first")
    return from_atom(Symbol(name))


def _operand(value: object) -> Dim | None:
    if isinstance(value, SymExpr):
        return value
    # Integral also covers numpy's integer scalars.
    return int(value) if isinstance(value, int | Integral) else None


def from_atom(atom: Atom) -> SymExpr:
    """The expression that is just `atom`."""
    return SymExpr((((atom,), 1),))


def terms_of(dim: Dim) -> tuple[tuple[Monomial, int], ...]:
    """The (monomial, coefficient) pairs of any dimension, as in `SymExpr.terms`; none for 0."""
    if isinstance(dim, SymExpr):
        return dim.terms
    return (((), dim),) if dim else ()


def _atom_key(atom: Atom) -> tuple[bool, str]:
    return bool(atom.args), atom.text


def _term_key(term: tuple[Monomial, int]) -> tuple[int, list[tuple[bool, str]]]:
    # Graded lexicographic: a monomial order, which long division in _exact_quotient relies on.
    return -len(term[0]), [_atom_key(atom) for atom in term[0]]


def map_atoms(dim: Dim, replace: Callable[[Atom], Dim]) -> Dim:
    """`dim` with each of its own (not nested) atoms replaced, in canonical form again."""
    total: Dim = 0
    for monomial, coeff in terms_of(dim):
        term: Dim = coeff
        for atom in monomial:
            term = term * replace(atom)
        total = total + term
    return total


def _build(coeffs: Mapping[Monomial, int]) -> Dim:
    terms = [term for term in coeffs.items() if term[1]]
    if not terms:
        return 0
    if len(terms) == 1 and not terms[0][0]:
        return terms[0][1]
    if len(terms) > MAX_TERMS:
        raise DimError(f"a dimension has {len(terms)} terms; the limit is {MAX_TERMS}")
    terms.sort(key=_term_key)
    return SymExpr(tuple(terms))


def make_atom(kind: type[Atom], a: Dim, b: Dim) -> SymExpr:
    """The expression that is just the atom of this kind over `a` and `b`, not both constant.

    Nothing is simplified here. Raises DimError where it nests too deeply or is too long.
    """
    if kind in (FloorDiv, Mod):
        text = f"{_wrapped(a)}{'//' if kind is FloorDiv else '%'}{_wrapped(b)}"
    else:
        text = f"{kind.__name__.lower()}({a},{b})"
    atoms = [atom for dim in (a, b) for monomial, _ in terms_of(dim) for atom in monomial]
    depth = 1 + max(atom.depth for atom in atoms)
    if depth > MAX_DEPTH or len(text) > MAX_TEXT:
        raise DimError(f"a dimension nests too deeply or is too long: {text[:60]}...")
    low, high = _atom_bounds(kind, a, b)
    return from_atom(kind(text, (a, b), low, high, depth))


def _wrapped(dim: Dim) -> str:
    atom = lone_atom(dim)
    plain = dim >= 0 if isinstance(dim, int) else atom and not isinstance(atom, FloorDiv | Mod)
    return str(dim) if plain else f"({dim})"


def _term_text(monomial: Monomial, coeff: int) -> str:
    if not monomial:
        return str(coeff)
    alone = coeff == 1 and len(monomial) == 1
    factors = [
        f"({atom})" if isinstance(atom, FloorDiv | Mod) and not alone else str(atom)
        for atom in monomial
    ]
    return {1: "", -1: "-"}.get(coeff, f"{coeff}*") + "*".join(factors)


def lone_atom(dim: Dim) -> Atom | None:
    """The atom that `dim` is, or None where it is anything else."""
    if isinstance(dim, SymExpr) and len(dim.terms) == 1:
        monomial, coeff = dim.terms[0]
        if coeff == 1 and len(monomial) == 1:
            return monomial[0]
    return None


# --- Arithmetic ---------------------------------------------------------------------------------


def _add(a: Dim, b: Dim) -> Dim:
    coeffs = dict(terms_of(a))
    for monomial, coeff in terms_of(b):
        coeffs[monomial] = coeffs.get(monomial, 0) + coeff
    return _build(coeffs)


def _scale(dim: Dim, factor: int) -> Dim:
    if isinstance(dim, int):
        return factor * dim
    if factor == 0:
        return 0
    return SymExpr(tuple((monomial, factor * coeff) for monomial, coeff in dim.terms))


def _multiply(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int):
        return _scale(b, a)
    if isinstance(b, int):
        return _scale(a, b)
    coeffs: dict[Monomial, int] = {}
    for left, x in a.terms:
        for right, y in b.terms:
            monomial = tuple(sorted(left + right, key=_atom_key))
            if len(monomial) > MAX_DEGREE:
                raise DimError(f"a dimension has degree {len(monomial)}; the limit is {MAX_DEGREE}")
            coeffs[monomial] = coeffs.get(monomial, 0) + x * y
    return _build(coeffs)


def _floor_div(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a // _nonzero(b)
    a, b, _ = _cancel(a, b)
    quotient, rest = _split(a, b)
    if _within(rest, b):
        return quotient
    if isinstance(b, int):
        offset, atom = _offset(rest, b), lone_atom(rest - _constant(rest))
        if offset:
            return quotient + _floor_div(rest - offset, b)
        if isinstance(atom, FloorDiv) and isinstance(divisor := atom.args[1], int):
            return quotient + _floor_div(atom.args[0] + divisor * _constant(rest), b * divisor)
    if quotient != 0:
        return quotient + _floor_div(rest, b)
    return make_atom(FloorDiv, rest, b)


def _modulo(a: Dim, b: Dim) -> Dim:
    if isinstance(a, int) and isinstance(b, int):
        return a % _nonzero(b)
    a, b, common = _cancel(a, b)
    if common != 1:
        return common * _modulo(a, b)
    quotient, rest = _split(a, b)
    if _within(rest, b):
        return rest
    if isinstance(b, int):
        offset, inner = _offset(rest, b), _drop_inner_mod(rest, b)
        if offset:
            return offset + _modulo(rest - offset, b)
        if inner != rest:
            return _modulo(inner, b)
    return _modulo(rest, b) if quotient != 0 else make_atom(Mod, rest, b)


def _nonzero(divisor: int) -> int:
    if divisor == 0:
        raise DimError("a dimension is divided by zero")
    return divisor


def _cancel(a: Dim, b: Dim) -> tuple[Dim, Dim, Dim]:
    """Returns x, y, g with a = g*x, b = g*y, y's leading coefficient positive; g is a monomial."""
    if b == 0:
        raise DimError(f"dimension {a} is divided by zero")
    terms = terms_of(a) + terms_of(b)
    scale = math.gcd(*(coeff for _, coeff in terms))
    if terms_of(b)[0][1] < 0:
        scale = -scale
    shared = list(terms[0][0])
    for monomial, _ in terms[1:]:
        shared = _intersection(shared, monomial)
    if scale == 1 and not shared:
        return a, b, 1
    common = {tuple(shared): scale}
    return _divide_terms(a, shared, scale), _divide_terms(b, shared, scale), _build(common)


def _intersection(left: list[Atom], right: Monomial) -> list[Atom]:
    remaining, kept = list(right), []
    for atom in left:
        if atom in remaining:
            remaining.remove(atom)
            kept.append(atom)
    return kept


def _divide_terms(dim: Dim, monomial: list[Atom], scale: int) -> Dim:
    coeffs = {}
    for own, coeff in terms_of(dim):
        quotient = _monomial_quotient(own, monomial)
        assert quotient is not None, "every term holds the shared monomial"
        coeffs[quotient] = coeff // scale
    return _build(coeffs)


def _monomial_quotient(dividend: Monomial, divisor: Monomial | list[Atom]) -> Monomial | None:
    rest = list(dividend)
    for atom in divisor:
        if atom not in rest:
            return None
        rest.remove(atom)
    return tuple(rest)


def _split(a: Dim, b: Dim) -> tuple[Dim, Dim]:
    """Returns q, r with a = q*b + r, moving into q whatever divides out term by term."""
    if isinstance(b, int):
        quotient = _build({monomial: coeff // b for monomial, coeff in terms_of(a)})
        return quotient, _build({monomial: coeff % b for monomial, coeff in terms_of(a)})
    if len(b.terms) > 1:
        exact = _exact_quotient(a, b)
        return (0, a) if exact is None else (exact, 0)
    (lead, scale), taken = b.terms[0], {}
    for monomial, coeff in terms_of(a):
        rest = _monomial_quotient(monomial, lead)
        if rest is not None and coeff % scale == 0:
            taken[rest] = coeff // scale
    quotient = _build(taken)
    return quotient, a - quotient * b


def _exact_quotient(a: Dim, b: SymExpr) -> Dim | None:
    lead, scale = b.terms[0]
    quotient: Dim = 0
    for _ in range(MAX_TERMS):
        if a == 0:
            return quotient
        monomial, coeff = terms_of(a)[0]
        rest = _monomial_quotient(monomial, lead)
        if rest is None or coeff % scale:
            return None
        step = _build({rest: coeff // scale})
        quotient, a = quotient + step, a - step * b
    return None


def _within(rest: Dim, b: Dim) -> bool:
    return rest == 0 or (known_le(0, rest) and known_le(rest + 1, b))


def _constant(dim: Dim) -> int:
    monomial, coeff = (terms_of(dim) or (((), 0),))[-1]
    return 0 if monomial else coeff


def _offset(dim: Dim, b: int) -> int:
    """The part of the constant that never carries: `dim` less this part and `b` share factor g."""
    factor = math.gcd(b, *(coeff for monomial, coeff in terms_of(dim) if monomial))
    return _constant(dim) % factor


def _drop_inner_mod(dim: Dim, b: int) -> Dim:
    def unwrap(atom: Atom) -> Dim:
        if isinstance(atom, Mod) and isinstance(inner := atom.args[1], int) and inner % b == 0:
            return atom.args[0]
        return from_atom(atom)

    return map_atoms(dim, unwrap)


# --- Bounds and proofs --------------------------------------------------------------------------


def lower_bound(dim: Dim) -> int | None:
    """A lower bound of `dim`, with every symbol >= 0; None if none was found."""
    return _lower(dim, _PROOF_STEPS)


def upper_bound(dim: Dim) -> int | None:
    """An upper bound of `dim`, with every symbol >= 0; None if none was found."""
    low = lower_bound(_scale(dim, -1))
    return None if low is None else -low


def known_le(a: Dim, b: Dim) -> bool:
    """True if `a <= b` is proved for all symbols >= 0; False means "not proved"."""
    low = lower_bound(b - a)
    return low is not None and low >= 0


def _lower(dim: Dim, steps: int) -> int | None:
    if isinstance(dim, int):
        return dim
    low = _interval_low(dim)
    if low is not None or steps == 0:
        return low
    linear = [(atoms[0], coeff) for atoms, coeff in dim.terms if len(atoms) == 1 and atoms[0].args]
    for atom, coeff in linear[:_PROOF_WIDTH]:
        low = _lower_without(dim, atom, coeff, steps)
        if low is not None:
            return low
    return None


def _lower_without(dim: SymExpr, atom: Atom, coeff: int, steps: int) -> int | None:
    """A lower bound of `dim` after replacing the linear term `coeff*atom` by linear bounds."""
    rest = dim - _scale(from_atom(atom), coeff)
    if isinstance(atom, FloorDiv) and isinstance(divisor := atom.args[1], int):
        # divisor*atom lies between x - divisor + 1 and x, for the dividend x.
        edge = atom.args[0] - (divisor - 1 if coeff > 0 else 0)
        low = _lower(divisor * rest + coeff * edge, steps - 1)
        return None if low is None else -(-low // divisor)
    if not isinstance(atom, Max | Min):
        return None
    lows = [_lower(rest + coeff * arg, steps - 1) for arg in atom.args]
    found = [low for low in lows if low is not None]
    if isinstance(atom, Max) == (coeff > 0):
        return max(found, default=None)
    return min(found) if len(found) == len(lows) else None


def _interval_low(dim: SymExpr) -> int | None:
    total = 0
    for monomial, coeff in dim.terms:
        low, high = _monomial_bounds(monomial)
        edge = low if coeff > 0 else high
        if edge is None:
            return None
        total += coeff * edge
    return total


def _monomial_bounds(monomial: Monomial) -> tuple[int | None, int | None]:
    if len(monomial) == 1:
        return monomial[0].low, monomial[0].high
    low, high = 1, 1
    bounded = True
    for atom in monomial:
        if atom.low is None or atom.low < 0:
            return None, None
        low *= atom.low
        bounded = bounded and atom.high is not None
        high *= atom.high or 0
    return low, high if bounded else None


def _atom_bounds(kind: type[Atom], a: Dim, b: Dim) -> tuple[int | None, int | None]:
    lows, highs = (lower_bound(a), lower_bound(b)), (upper_bound(a), upper_bound(b))
    if kind is Broadcast:
        return _strictest(min, lows, need_all=True), _strictest(max, highs, need_all=True)
    if kind is Max:
        return _strictest(max, lows), _strictest(max, highs, need_all=True)
    if kind is Min:
        return _strictest(min, lows, need_all=True), _strictest(min, highs)
    if lows[1] is None or lows[1] < 0:
        return None, None
    # A divisor that is never negative is positive wherever the division is defined.
    non_negative = lows[0] is not None and lows[0] >= 0
    if kind is Mod:
        limit = None if highs[1] is None else highs[1] - 1
        return 0, _strictest(min, (limit, highs[0] if non_negative else None))
    if isinstance(b, int):
        return _quotient(lows[0], b), _quotient(highs[0], b)
    return (0, highs[0]) if non_negative else (None, None)


def _quotient(value: int | None, divisor: int) -> int | None:
    return None if value is None else value // divisor


def _strictest(
    pick: Callable[[list[int]], int], bounds: tuple[int | None, ...], need_all: bool = False
) -> int | None:
    found = [bound for bound in bounds if bound is not None]
    return pick(found) if found and (len(found) == len(bounds) or not need_all) else None
