"""Lowering of AffineGrid."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import tirx

from ...tir.builder import Expr, TensorExpr
from ...tir.extents import as_int, index
from ...tir.numeric import cast
from ..registry import LowerContext, lowering, sizes


@lowering("AffineGrid")
def lower_affine_grid(c: LowerContext) -> TensorExpr:
    """AffineGrid-20: theta times the coordinates of each pixel in a regular grid over [-1, 1]."""
    theta = c.buffered(0)
    align = bool(c.attr("align_corners"))
    dtype = theta.compute_dtype
    *spatial, rank = c.out_shape()[1:]

    def load(at: tuple[Expr, ...]) -> Expr:
        n, *place, row = at
        total = theta[n, row, rank]
        for column, d in enumerate(reversed(range(rank))):  # theta lists the last dim first
            coordinate = _coordinate(place[d], spatial[d], align, dtype)
            total = total + theta[n, row, column] * coordinate
        return total

    return c.lazy(load, cost=8 * rank)


def _coordinate(i: Expr, extent: Any, align: bool, dtype: str) -> Expr:
    """The coordinate of element ``i`` in [-1, 1].

    With ``align``, the first element is at -1 and the last at 1; else the outer edges of these are.
    """
    size, one = cast(index(extent), dtype), tirx.const(1, dtype)
    twice = cast(i * 2, dtype)
    if not align:
        return (twice + one) / size - one
    if as_int(extent) == 1:
        return -one
    return twice / tirx.max(size - one, one) - one


@sizes("AffineGrid")
def affine_grid_sizes(c: LowerContext) -> Sequence[Expr]:
    """The spatial entries of ``size``."""
    count = as_int(c.input(1).shape[0])
    assert count is not None
    return [c.input(1)[i] for i in range(2, count)]
