"""Products of rows with rows: ``sum over k of a[i, k] * b[j, k]``, a register tile at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...tir.builder import Builder, Expr, as_int, index
from ...tir.numeric import cast
from ...tir.reduce import split

ROWS = 4
COLUMNS = 4
"""Rows and columns of a tile: each loaded vector is used four times."""

LANES = 16
"""Elements that a tile multiplies at once: a vector of float32 on AVX-512, two on AVX2."""

Row = Callable[[Expr], Expr]


def lanes_for(extent: Any) -> int:
    """Lanes for a contiguous run of ``extent`` elements, few of which may be left over."""
    known = as_int(extent)
    if known is None or known % LANES == 0:
        return LANES
    widths = [w for w in (1, 2, 4, 8, LANES) if w <= known]
    return min(widths, default=1, key=lambda w: (known // w + known % w, -w))


def each_lane(b: Builder, extent: Any, body: Callable[[Expr], None]) -> None:
    """``body(i)`` for every i below ``extent``, in vectors; no element is visited twice."""
    lanes = lanes_for(extent)
    whole, tail = split(extent, lanes)
    with b.loop(whole) as block, b.lanes(lanes) as lane:
        body(block * lanes + lane)
    if as_int(tail) != 0:
        with b.loop(tail) as i:
            body(index(whole) * lanes + i)


def dot_tile(
    b: Builder, rows: Sequence[Row], columns: Sequence[Row], depth: Any, dtype: str
) -> list[list[Expr]]:
    """The products of all ``rows`` with all ``columns``, summed over ``depth`` in ``dtype``."""
    lanes = lanes_for(depth)
    tiles = len(rows) * len(columns)
    sums = b.local((tiles * lanes,), dtype)
    zero = cast(index(0), dtype)
    for i in range(tiles):
        with b.lanes(lanes) as lane:
            sums.store((i * lanes + lane,), zero)

    def multiply(k: Callable[[Expr], Expr], width: int) -> None:
        for r, row in enumerate(rows):
            for c, column in enumerate(columns):
                with b.lanes(width) as lane:
                    place = (r * len(columns) + c) * lanes + lane
                    product = cast(row(k(lane)), dtype) * cast(column(k(lane)), dtype)
                    sums.store((place,), sums[place] + product)

    whole, tail = split(depth, lanes)
    with b.loop(whole) as block:
        multiply(lambda lane: block * lanes + lane, lanes)
    if as_int(tail) != 0:
        with b.loop(tail) as i:
            multiply(lambda _lane: index(whole) * lanes + i, 1)
    return _merged(b, sums, len(rows), len(columns), lanes)


def _merged(b: Builder, sums: Any, rows: int, columns: int, lanes: int) -> list[list[Expr]]:
    """The sum of each accumulator's lanes, halving them."""
    width = lanes
    while width > 1:
        width //= 2
        for i in range(rows * columns):
            with b.lanes(width) as lane:
                place = i * lanes + lane
                sums.store((place,), sums[place] + sums[place + width])
    return [[sums[(r * columns + c) * lanes] for c in range(columns)] for r in range(rows)]
