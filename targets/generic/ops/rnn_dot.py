"""Products of rows with rows: ``sum over k of a[i, k] * b[j, k]``, a register tile at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from ...tir.builder import Builder, Expr
from ...tir.extents import as_int, index
from ...tir.numeric import cast
from ...tir.partial import split, vector_lanes

ROWS = 4
COLUMNS = 4
"""Rows (at most) and columns of a tile."""

Row = Callable[[Expr], Expr]


def tile_rows(b: Builder) -> int:
    """Rows of a tile that leaves registers for its operands."""
    return {0: 1, 32: 2}.get(b.loops.vector_bytes, ROWS)


def lanes_for(b: Builder, extent: Any, dtype: str) -> int:
    """Lanes for a contiguous run of ``extent`` elements, such that few are left over."""
    known, most = as_int(extent), vector_lanes(dtype, b.loops.vector_bytes)
    if known is None or known % most == 0:
        return most
    widths = [1 << p for p in range(most.bit_length()) if 1 << p <= known]
    return min(widths, default=1, key=lambda w: (known // w + known % w, -w))


def each_lane(b: Builder, extent: Any, dtype: str, body: Callable[[Expr], None]) -> None:
    """``body(i)`` for every i below ``extent``, in vectors; no element is visited twice."""
    lanes = lanes_for(b, extent, dtype)
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
    lanes = lanes_for(b, depth, dtype)
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
    """The sum of each accumulator's lanes, by adding one half to the other repeatedly."""
    width = lanes
    while width > 1:
        width //= 2
        for i in range(rows * columns):
            with b.lanes(width) as lane:
                place = i * lanes + lane
                sums.store((place,), sums[place] + sums[place + width])
    return [[sums[(r * columns + c) * lanes] for c in range(columns)] for r in range(rows)]
