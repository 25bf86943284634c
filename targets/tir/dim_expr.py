"""Symbolic dims as TensorIR expressions."""

from __future__ import annotations

from collections.abc import Callable
from operator import mul
from typing import Any

from tvm import tirx

from ...ir.dims import Atom, Broadcast, Dim, FloorDiv, Max, Min, Symbol, SymExpr


def dim_expr(dim: Dim, symbol: Callable[[str], Any], times: Callable[[Any, Any], Any] = mul) -> Any:
    """``dim`` as an int64 expression. ``symbol`` maps a symbol's name to its variable, and
    ``times`` multiplies.
    """
    if not isinstance(dim, SymExpr):
        return tirx.IntImm("int64", int(dim))
    total: Any = None
    for monomial, coefficient in dim.terms:
        term: Any = tirx.IntImm("int64", coefficient)
        for i, atom in enumerate(monomial):
            factor = _atom_expr(atom, symbol, times)
            term = factor if i == 0 and coefficient == 1 else times(term, factor)
        total = term if total is None else total + term
    return total


def _atom_expr(atom: Atom, symbol: Callable[[str], Any], times: Callable[[Any, Any], Any]) -> Any:
    if isinstance(atom, Symbol):
        return symbol(atom.text)
    a, b = (dim_expr(arg, symbol, times) for arg in atom.args)
    if isinstance(atom, Max):
        return tirx.max(a, b)
    if isinstance(atom, Min):
        return tirx.min(a, b)
    if isinstance(atom, Broadcast):
        return tirx.Select(a == tirx.IntImm("int64", 1), b, a)
    # The dims of a branch that is not taken are computed too, where a divisor may be 0.
    divisor = b if isinstance(b, tirx.IntImm) else tirx.max(b, tirx.IntImm("int64", 1))
    return (tirx.floordiv if isinstance(atom, FloorDiv) else tirx.floormod)(a, divisor)
