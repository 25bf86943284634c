"""Exact start and length of a slice whose bounds may be symbolic.

Negative bounds count from the end, and both are clamped to the axis. If the step is negative, a
start before the axis becomes its first element (as in ONNX's Slice; in Python such a slice is
empty).
"""

from __future__ import annotations

from ..errors import OperandError
from .dims import (
    Dim,
    Symbol,
    SymExpr,
    ceil_div,
    dim_max,
    dim_min,
    free_symbols,
    known_le,
    lower_bound,
    substitute,
    sym,
    upper_bound,
)

FAR = 10**9
"""A bound of at least this stands for the end of the axis; a negative one for its start."""


def slice_range(start: Dim, end: Dim, step: int, size: Dim) -> tuple[Dim, Dim] | None:
    """First index and number of elements of ``start:end:step`` on an axis of ``size``.

    None if that is no expression over the symbols. The first index is only in bounds if the number
    of elements is not 0. Raises ``ValueError`` for a step of 0.
    """
    if step == 0:
        raise OperandError("the step of a slice is 0")
    first, last = _from_front(start, size), _from_front(end, size)
    if first is None or last is None:
        return None
    if step > 0:
        first = dim_max(0, first)
        return first, dim_max(0, ceil_div(dim_min(last, size) - first, step))
    # The larger of 0 and the start makes no difference where the start is the end of the axis.
    first = size - 1 if known_le(size - 1, first) else dim_min(dim_max(0, first), size - 1)
    return first, dim_max(0, ceil_div(first - dim_max(last, -1), -step))


def python_slice(start: int, end: int, step: int, size: int) -> slice:
    """The Python slice with the elements of ONNX's ``start:end:step`` on an axis of ``size``."""
    return slice(max(start, -size) if step < 0 else start, end, step)


def _from_front(bound: Dim, size: Dim) -> Dim | None:
    """``bound`` counted from the front, not clamped yet; None where its sign is not known."""
    if isinstance(bound, int):
        if bound >= 0:
            return size if bound >= FAR and isinstance(size, SymExpr) else bound
        return -1 if bound <= -FAR and isinstance(size, SymExpr) else size + bound
    if nonnegative_index(bound, size):
        return bound
    high = upper_bound(bound)
    return size + bound if high is not None and high < 0 else None


def nonnegative_index(bound: Dim, size: Dim) -> bool:
    """True if ``bound >= 0`` is proved wherever an axis of ``size`` has any elements."""
    low = lower_bound(substitute(bound, _one_or_more(size)))
    return low is not None and low >= 0


def _one_or_more(size: Dim) -> dict[str, Dim]:
    """Symbols of ``size`` raised by one, where ``size >= 1`` means that they are at least one."""
    if not isinstance(size, SymExpr) or len(size.terms) != 1:
        return {}
    monomial, coefficient = size.terms[0]
    if coefficient < 1 or not all(isinstance(atom, Symbol) for atom in monomial):
        return {}
    return {name: sym(name) + 1 for name in free_symbols(size)}
