"""Loads of whole vector registers, and reductions over the lanes of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx

from .builder import BufferTensor, Builder, TensorExpr
from .extents import index

Expr = Any


def load_lanes(b: Builder, x: TensorExpr, at: Sequence[Expr], first: Expr, lanes: int) -> Expr:
    """Elements ``[*at, first : first + lanes]`` of ``x`` as one vector, as they are stored."""
    if isinstance(x, BufferTensor):
        return b.let(x.load_raw([*at, tirx.Ramp(index(first), index(1), lanes)]))
    held = b.local((lanes,), x.dtype, "lanes")
    with b.lanes(lanes) as lane:
        held.store((lane,), x[(*at, first + lane)])
    return b.let(held.load_raw([tirx.Ramp(index(0), index(1), lanes)]))


def all_lanes(b: Builder, value: Expr, lanes: int, combine: Callable[[Expr, Expr], Expr]) -> Expr:
    """A vector whose every lane holds all lanes of ``value`` combined.

    ``lanes`` is a power of two. Lanes are combined in pairs at distance 1, then 2, 4 and so on.
    """
    value, distance = b.let(value), 1
    while distance < lanes:
        order = [tirx.IntImm("int32", lane ^ distance) for lane in range(lanes)]
        other = b.let(tirx.Shuffle([value], order))
        value = b.let(combine(value, other))
        distance *= 2
    return value
