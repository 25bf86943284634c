"""Maximum, minimum and broadcast of symbolic dimensions.

max(min(x, y), x) = x                min(max(x, y), x) = x
max(x, y) = y                        where x <= y is provable
broadcast(x, y) = y                  where 1 <= x <= y is provable
"""

from __future__ import annotations

from .dim_algebra import (
    Atom,
    Broadcast,
    Dim,
    DimError,
    Max,
    Min,
    known_le,
    lone_atom,
    make_atom,
)


def dim_max(a: Dim, b: Dim) -> Dim:
    """The larger of two dimensions; an atom only where the order cannot be proved."""
    return _extremum(Max, a, b)


def dim_min(a: Dim, b: Dim) -> Dim:
    """The smaller of two dimensions; an atom only where the order cannot be proved."""
    return _extremum(Min, a, b)


def dim_broadcast(a: Dim, b: Dim) -> Dim:
    """The size that `a` and `b` have together where both are equal or one is 1.

    Of a constant other than 1 and a symbol it is the constant. Unlike the maximum it is right for
    0 against 1, which is 0. Raises DimError for two constants that do not fit.
    """
    leaves: list[Dim] = []
    for dim in (a, b):
        for leaf in _broadcast_leaves(dim):
            if leaf != 1 and leaf not in leaves:
                leaves.append(leaf)
    constants = [leaf for leaf in leaves if isinstance(leaf, int)]
    if len(constants) > 1:
        raise DimError(f"dimensions {constants[0]} and {constants[1]} do not broadcast")
    if constants:
        return constants[0]
    leaves = [p for p in leaves if not any(_yields(p, q) for q in leaves if q is not p)]
    leaves.sort(key=str)
    common: Dim = leaves[0] if leaves else 1
    for leaf in leaves[1:]:
        common = make_atom(Broadcast, common, leaf)
    return common


def _yields(p: Dim, q: Dim) -> bool:
    """Is `q` the common size whenever `p` and `q` broadcast? It is for p = min(q, 512), for
    instance.

    It is if p is at most q, and p is not 0 unless q is.
    """
    atom = lone_atom(p)
    if isinstance(atom, Min) and q in atom.args:
        return all(arg == q or known_le(1, arg) for arg in atom.args)
    return known_le(1, p) and known_le(p, q)


def _broadcast_leaves(dim: Dim) -> list[Dim]:
    atom = lone_atom(dim)
    if not isinstance(atom, Broadcast):
        return [dim]
    return [leaf for arg in atom.args for leaf in _broadcast_leaves(arg)]


def _extremum(kind: type[Atom], a: Dim, b: Dim) -> Dim:
    pick = max if kind is Max else min
    if isinstance(a, int) and isinstance(b, int):
        return pick(a, b)
    a, b = sorted((a, b), key=lambda dim: (isinstance(dim, int), str(dim)))
    if known_le(a, b):
        return b if kind is Max else a
    if known_le(b, a):
        return a if kind is Max else b
    for nested, other in ((a, b), (b, a)):
        atom = lone_atom(nested)
        # max(min(x, y), x) = x, and the other way round.
        if isinstance(atom, Max | Min) and type(atom) is not kind and other in atom.args:
            return other
    inner = lone_atom(a)
    if isinstance(b, int) and type(inner) is kind and isinstance(limit := inner.args[1], int):
        return _extremum(kind, inner.args[0], pick(limit, b))
    return make_atom(kind, a, b)
