"""Matrix products for any target, element type and operand order, by tiles of sums in registers.

Operands are read where they are. The templates of a target pack them first and are faster.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from tvm import tirx

from .builder import BufferTensor, Builder, Expr, Scalar
from .extents import as_int, index, static_product
from .partial import SUM, best_lanes, ceil_div, merge_lanes, split, vector_lanes

At: TypeAlias = "tuple[Expr, ...]"


@dataclass(frozen=True)
class Contraction:
    """``out[batch, i, j] = sum over k of lhs(batch, i, k) * rhs(batch, k, j)``.

    Operands give values of the TVM dtype ``dtype``, in which the sums are computed. ``store`` is
    called with the index and the sum of each element, for some of them twice, with the same sum.
    """

    batch: tuple[Any, ...]
    rows: Any
    columns: Any
    inner: tuple[Any, ...]
    lhs: Callable[[At, Expr, At], Expr]
    rhs: Callable[[At, At, Expr], Expr]
    store: Callable[[At, Expr, Expr, Expr], None]
    dtype: str

    def transposed(self) -> Contraction:
        """The same sums with ``lhs`` and ``rhs``, rows and columns swapped."""
        return Contraction(
            self.batch,
            self.columns,
            self.rows,
            self.inner,
            lambda at, j, k: self.rhs(at, k, j),
            lambda at, k, i: self.lhs(at, i, k),
            lambda at, j, i, value: self.store(at, i, j, value),
            self.dtype,
        )


def contract(b: Builder, c: Contraction, along: Literal["columns", "inner"]) -> None:
    """Compute ``c``; ``along`` says which index of ``rhs`` is contiguous in memory."""
    width = vector_lanes(c.dtype, b.loops.vector_bytes)
    if width == 1:
        _scalar(b, c)
    elif along == "inner":
        _along_inner(b, c, width)
    else:
        _along_columns(b, c, width)


def _work(c: Contraction) -> int:
    return static_product(c.inner) or 1_000


def _scalar(b: Builder, c: Contraction) -> None:
    def body(at: At) -> None:
        *batch, i, j = at
        c.store(tuple(batch), i, j, _dot(b, c, tuple(batch), i, j))

    b.nest((*c.batch, c.rows, c.columns), body, _work(c), sequential_last=True)


def _dot(b: Builder, c: Contraction, at: At, i: Expr, j: Expr) -> Expr:
    total = b.scalar(c.dtype, SUM.identity(c.dtype))
    with b.grid(*c.inner) as k:
        total.set(total.get() + c.lhs(at, i, k) * c.rhs(at, k, j))
    return total.get()


# ---- rhs contiguous along columns: lanes are columns ---------------------------------------------


def _along_columns(b: Builder, c: Contraction, width: int) -> None:
    """Tiles of up to 6 rows by one or more vectors of columns.

    If there are fewer columns than a tile has, elements are computed one by one.
    """
    lanes, vectors = _column_tile(c, width)
    height = _tile_rows(as_int(c.rows), 6 if vectors <= 2 else 1)
    tile = lanes * vectors

    def column_tile(at: At, j: Expr, row_tile: Expr) -> None:
        i = b.let(row_tile * height, "row")
        known = as_int(c.rows)
        if known is not None and known % height == 0:
            _columns_kernel(b, c, at, i, height, j, lanes, vectors)
            return
        with b.when(i + height <= index(c.rows)):
            _columns_kernel(b, c, at, i, height, j, lanes, vectors)
        with b.when(i + height > index(c.rows)), b.loop(index(c.rows) - i) as r:
            _columns_kernel(b, c, at, i + r, 1, j, lanes, vectors)

    def body(at: At) -> None:
        *batch, t, row_tile = at
        n = index(c.columns)
        if as_int(c.columns) is not None:
            column_tile(tuple(batch), _tile_start(c, t, tile), row_tile)
            return
        with b.when(n >= tile):
            start = b.let(tirx.min(t * tile, n - tile), "column")
            column_tile(tuple(batch), start, row_tile)
        with b.when(n < tile):
            _few_columns(b, c, tuple(batch), row_tile, height)

    tiles = (ceil_div(c.columns, tile), ceil_div(c.rows, height))
    b.nest((*c.batch, *tiles), body, _work(c) * height * tile, sequential_last=True)


def _tile_start(c: Contraction, t: Expr, tile: int) -> Expr:
    """The first column of tile ``t``. A last tile that is not full begins earlier, to be a full
    one.
    """
    n = as_int(c.columns)
    assert n is not None
    return t * tile if n % tile == 0 else tirx.min(t * tile, index(n - tile))


def _few_columns(b: Builder, c: Contraction, at: At, row_tile: Expr, height: int) -> None:
    """A tile of rows, one element at a time, where the columns do not fill a single tile."""
    rows = tirx.min(index(height), index(c.rows) - row_tile * height)
    with b.loop(rows) as r, b.loop(c.columns) as j:
        i = row_tile * height + r
        c.store(at, i, j, _dot(b, c, at, i, j))


def _column_tile(c: Contraction, width: int) -> tuple[int, int]:
    """Lanes of a vector and vectors of a tile."""
    n = as_int(c.columns)
    few_rows = (as_int(c.rows) or 8) <= 2
    if n is None:
        return width, 1 if as_int(c.rows) is None else 2
    lanes = min(width, 1 << max(0, n.bit_length() - 1))
    return lanes, min(4 if few_rows else 2, max(1, n // lanes))


def _tile_rows(rows: int | None, most: int) -> int:
    """Rows of a register tile: a divisor of all ``rows``, or a number that leaves few over."""
    if rows is None:
        return min(most, 4)
    heights = range(1, min(rows, most) + 1)
    # A left-over row costs about as much as a whole tile.
    return min(heights, key=lambda h: (rows // h + rows % h, -h), default=1)


def _columns_kernel(
    b: Builder, c: Contraction, at: At, i: Expr, height: int, j: Expr, lanes: int, vectors: int
) -> None:
    """One tile: each step broadcasts an element of ``lhs`` for each row."""
    acc = [[b.local((lanes,), c.dtype) for _ in range(vectors)] for _ in range(height)]
    for row in acc:
        for sums in row:
            _clear(b, sums, lanes)
    with b.grid(*c.inner) as k:
        left = [b.let(c.lhs(at, i + r, k), "a") for r in range(height)]
        for v in range(vectors):
            with b.lanes(lanes) as lane:
                right = b.let(c.rhs(at, k, j + v * lanes + lane), "b")
                for r in range(height):
                    acc[r][v].store((lane,), acc[r][v][lane] + left[r] * right)
    for r in range(height):
        for v in range(vectors):
            with b.lanes(lanes) as lane:
                c.store(at, i + r, j + v * lanes + lane, acc[r][v][lane])


def _clear(b: Builder, sums: BufferTensor, lanes: int) -> None:
    with b.lanes(lanes) as lane:
        sums.store((lane,), SUM.identity(sums.dtype))


# ---- rhs contiguous along the summed index: lanes are terms --------------------------------------


def _along_inner(b: Builder, c: Contraction, width: int) -> None:
    """Tiles of up to 2 rows by 4 columns, with partial sums of each element in lanes."""
    known = as_int(c.inner[-1])
    lanes = width if known is None else best_lanes(known, width)
    height, breadth = (min(as_int(e) or most, most) for e, most in ((c.rows, 2), (c.columns, 4)))

    def body(at: At) -> None:
        *batch, row_tile, t = at
        rows = [_clamp(row_tile * height + r, c.rows, height) for r in range(height)]
        columns = [_clamp(t * breadth + s, c.columns, breadth) for s in range(breadth)]
        _inner_kernel(
            b, c, tuple(batch), [b.let(i) for i in rows], [b.let(j) for j in columns], lanes
        )

    tiles = (ceil_div(c.rows, height), ceil_div(c.columns, breadth))
    b.nest((*c.batch, *tiles), body, _work(c) * height * breadth, sequential_last=True)


def _clamp(i: Expr, extent: Any, tile: int) -> Expr:
    """``i``, but at most the last index: a tile at the edge computes its last line repeatedly."""
    known = as_int(extent)
    return i if known is not None and known % tile == 0 else tirx.min(i, index(extent) - 1)


def _inner_kernel(
    b: Builder, c: Contraction, at: At, rows: list[Expr], columns: list[Expr], lanes: int
) -> None:
    """One tile: whole vectors of terms, then the terms that are left, then the sum of all lanes."""
    places = [(i, j) for i in rows for j in columns]
    if lanes == 1:
        for i, j in places:
            c.store(at, i, j, _dot(b, c, at, i, j))
        return
    acc = [b.local((lanes,), c.dtype) for _ in places]
    rest = [b.scalar(c.dtype, SUM.identity(c.dtype)) for _ in places]
    for sums in acc:
        _clear(b, sums, lanes)
    *outer, n = c.inner
    whole, tail = split(n, lanes)
    with b.grid(*outer) as k:
        with b.loop(whole) as block, b.lanes(lanes) as lane:
            _add_products(b, c, at, rows, columns, (*k, block * lanes + lane), acc, lane)
        if as_int(tail) != 0:
            with b.loop(tail) as t:
                _add_products(b, c, at, rows, columns, (*k, index(whole) * lanes + t), rest, None)
    for (i, j), sums, scalar in zip(places, acc, rest, strict=True):
        merge_lanes(b, sums, SUM, lanes)
        c.store(at, i, j, sums[0] + scalar.get())


def _add_products(
    b: Builder, c: Contraction, at: At, rows: list[Expr], columns: list[Expr], k: At,
    into: Sequence[BufferTensor | Scalar], lane: Expr | None,
) -> None:  # fmt: skip
    """Add ``lhs * rhs`` at ``k`` for every row and column."""
    left = [b.let(c.lhs(at, i, k), "a") for i in rows]
    right = [b.let(c.rhs(at, k, j), "b") for j in columns]
    products = [x * y for x in left for y in right]
    for sums, value in zip(into, products, strict=True):
        if isinstance(sums, Scalar):
            sums.set(sums.get() + value)
        else:
            sums.store((lane,), sums[lane] + value)
