"""Reading inputs at the indices of a broadcast output."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from tvm import tirx

from ...ir.types import Shape
from ..tir.builder import Expr, TensorExpr
from ..tir.extents import as_int, index, same_extent
from .registry import LowerContext

Load: TypeAlias = "Callable[[tuple[Expr, ...]], Expr]"


def aligned(ctx: LowerContext, i: int, out: int = 0) -> Load:
    """Input ``i`` as a function of the indices of output ``out``, under NumPy's broadcasting."""
    t = ctx.input_types[i]
    if t is None:
        raise ctx.error(f"input {i} is missing")
    return broadcast_load(ctx.input(i), t.dims, ctx.types[out].dims)


def broadcast_load(x: TensorExpr, dims: Shape, target: Shape) -> Load:
    """``x``, whose shape is ``dims``, as a function of indices into ``target``."""
    skipped = len(target) - len(dims)

    def load(at: tuple[Expr, ...]) -> Expr:
        where = []
        for axis, d in enumerate(dims):
            here = at[skipped + axis]
            if d == 1:
                where.append(index(0))
            elif d == target[skipped + axis]:
                where.append(here)
            else:  # 1 or equal at run time: the minimum is right for both
                where.append(tirx.min(here, index(x.shape[axis]) - index(1)))
        return x.load(tuple(where))

    return load


def broadcast_index(
    at: tuple[Expr, ...], extents: Sequence[Any], full: Sequence[Any]
) -> tuple[Expr, ...]:
    """The index into axes ``extents`` for index ``at`` into the axes ``full`` that they broadcast
    to.

    Extents that are only known at run time may turn out to be 1.
    """
    skipped = len(full) - len(extents)
    where = []
    for i, extent, whole in zip(at[skipped:], extents, full[skipped:], strict=True):
        exact = as_int(extent) is not None or same_extent(extent, whole)
        first = index(0) if as_int(extent) == 1 else tirx.min(i, index(extent) - 1)
        where.append(i if exact and as_int(extent) != 1 else first)
    return tuple(where)


def scalar(ctx: LowerContext, i: int) -> Expr:
    """The one element of input ``i``."""
    x = ctx.input(i)
    return x.load((index(0),) * x.rank)
