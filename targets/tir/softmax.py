"""Softmax of one group of elements."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from . import math
from .builder import Builder, Expr
from .extents import as_int, product
from .numeric import compute_dtype, dtype_of, round_to
from .reduce import MAX_NUMBER, SUM, At, Group, Held, Load, Monoid

STEPWISE = 16
"""Rows of bfloat16 up to this length round after each operation, as ONNX's function body does.

With 8 bits of mantissa every rounding shows. Longer rows would lose too much in their sum.
"""

Put = Callable[[At, Expr], None]


def softmax(
    b: Builder, g: Group, element: str, load: Load, put: Put, get: Load | None, masked: bool
) -> None:
    """Call ``put(at, exp(x - max x) / sum)`` for ``x = load(at)``, for all elements of the group.

    ``element`` is the IR type of the operand. ``get`` reads back what ``put`` has stored, if it is
    stored exactly; exponentials are then stored in the result on the way, so ``put`` is called
    twice for an element. ``masked``: the result is 0 for a group of -inf only, rather than NaN.
    """
    if element == "bfloat16" and (as_int(product(g.extents)) or STEPWISE + 1) <= STEPWISE:
        _stepwise(b, g, element, load, put, masked)
        return
    dtype = compute_dtype(element)
    shift = _shift(g, load, dtype, masked)

    def power(at: At) -> Expr:
        value = b.let(math.exp_flush(b, load(at) - shift()))
        if get is not None:
            put(at, value)
        return value

    total = g.fold(power, SUM, dtype)
    one = tirx.const(1, dtype)
    scale = g.hold(lambda: one / _nonzero(total(), masked), dtype)
    g.each(lambda at: put(at, (power(at) if get is None else get(at)) * scale()))


def _shift(g: Group, load: Load, dtype: str, masked: bool) -> Held:
    peak = g.fold(load, MAX_NUMBER, dtype)
    return g.hold(lambda: finite_or_zero(peak()), dtype) if masked else peak


def finite_or_zero(value: Expr) -> Expr:
    """``value``, or 0 if it is infinite: what to subtract before an exponential."""
    dtype = dtype_of(value)
    infinite = tirx.abs(value).equal(tirx.infinity(dtype))
    return tirx.Select(infinite, tirx.const(0, dtype), value)


def _nonzero(total: Expr, masked: bool) -> Expr:
    if not masked:
        return total
    dtype = dtype_of(total)
    return tirx.Select(total.equal(tirx.const(0, dtype)), tirx.const(1, dtype), total)


def _stepwise(b: Builder, g: Group, element: str, load: Load, put: Put, masked: bool) -> None:
    """Round to the element type after every operation, also while adding up."""
    dtype = compute_dtype(element)

    def step(value: Any) -> Expr:
        return b.let(round_to(b.let(value), element))

    shift = _shift(g, load, dtype, masked)

    def power(at: At) -> Expr:
        return step(math.exp_flush(b, step(load(at) - shift())))

    add = Monoid(lambda x, y: step(x + y), SUM.identity, ordered=True)
    total = g.fold(power, add, dtype)
    g.each(lambda at: put(at, step(power(at) / _nonzero(total(), masked))))
