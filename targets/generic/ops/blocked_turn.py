"""Conversion between plain and blocked layouts, by transposing square blocks in vector registers.

A square is one block of channels (16, say) by as many neighbours along the last spatial dim. The
last square of a row ends with the row, so it may overlap the one before. Rows shorter than a square
are moved element by element.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import tirx

from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import as_int, index, product
from ...tir.lanes import load_lanes
from ...tir.numeric import storage_dtype
from .movement_transpose import MOST_LANES, transposed_rows

At = tuple[Expr, ...]


def turns(b: Builder, x: TensorExpr, block: int, last: Any) -> bool:
    """Can squares of ``block`` channels be transposed, in rows of ``last`` positions?"""
    stored = storage_dtype(x.dtype)
    if b.loops.lane_kind != "vectorized" or stored == "bool" or not 2 <= block <= MOST_LANES:
        return False
    known = as_int(last)
    fits = block * tvm.DataType(stored).bits <= 8 * b.loops.vector_bytes
    return fits and block & (block - 1) == 0 and (known is None or known >= block)


def unpack_turned(b: Builder, x: TensorExpr, out: BufferTensor) -> None:
    """Store the plain form [N, C, *S] of blocked ``x`` [N, Cb, *S, block] to ``out``."""
    n, channels, *spatial = out.shape
    blocks, block = x.shape[1], int(x.shape[-1])
    if isinstance(x, BufferTensor):  # one long row
        x = b.view(x, (n, blocks, product(spatial), block))
        spatial = [product(spatial)]
        out = b.view(out, (n, channels, *spatial))
    rest = int(channels) % block

    def turned(at: At, start: Expr) -> None:
        image, c, *outer = at
        places = [(image, c, *outer, start + j) for j in range(block)]
        columns = [load_lanes(b, x, place, index(0), block) for place in places]
        rows = transposed_rows(b, columns)
        ramp = tirx.Ramp(start, index(1), block)

        def store(first: int, end: int) -> None:
            for i in range(first, end):
                out.store_raw([image, c * block + i, *outer, ramp], rows[i])

        store(0, rest or block)
        if rest:
            with b.when(c < index(blocks) - 1):
                store(rest, block)

    def single(at: At, position: Expr) -> None:
        image, c, *outer = at
        inside = tirx.min(index(channels) - c * block, index(block))
        with b.loop(inside) as i:
            value = x[(image, c, *outer, position, i)]
            out.store((image, c * block + i, *outer, position), value)

    _rows(b, (n, blocks, *spatial), block, x.cost, turned, single)


def pack_turned(b: Builder, x: BufferTensor, out: BufferTensor) -> None:
    """Store the blocked form [N, Cb, *S, block] of ``x`` [N, C, *S]; channels past C are zero."""
    n, channels, *spatial = x.shape
    blocks, block = out.shape[1], int(out.shape[-1])
    row = product(spatial)
    flat, packed = b.view(x, (n, channels, row)), b.view(out, (n, blocks, row, block))
    ramp, rest = tirx.Ramp(index(0), index(1), block), int(channels) % block
    zero = tirx.const(0, packed.compute_dtype)
    nothing = tirx.Broadcast(tirx.const(0, packed.buffer.dtype), block)

    def channel(c: Expr, i: Any) -> tuple[Expr, Expr]:
        """The ``i``-th channel of a block, at most the last; and whether it exists."""
        wanted = c * block + i
        return b.opaque(tirx.min(wanted, index(channels) - 1)), wanted < index(channels)

    def turned(at: At, start: Expr) -> None:
        image, c = at
        rows = []
        for i in range(block):
            place, exists = channel(c, i)
            row = load_lanes(b, flat, (image, place), start, block)
            certain = not rest or i < rest
            rows.append(row if certain else b.let(tirx.Select(exists, row, nothing)))
        for j, value in enumerate(transposed_rows(b, rows)):
            packed.store_raw([image, c, start + j, ramp], value)

    def single(at: At, position: Expr) -> None:
        image, c = at
        with b.loop(block) as i:
            place, exists = channel(c, i)
            value = b.let(flat[image, place, position])
            packed.store((image, c, position, i), tirx.Select(exists, value, zero))

    _rows(b, (n, blocks, row), block, 0, turned, single)


def _rows(
    b: Builder, shape: tuple[Any, ...], block: int, cost: int,
    turned: Callable[[At, Expr], None], single: Callable[[At, Expr], None],
) -> None:  # fmt: skip
    """Run ``turned`` for all blocks of the last dim of ``shape``, or ``single`` for positions."""
    *outer, last = shape
    # Without this TVM's analyzer factors a product of dims, and divides by zero.
    extent = b.opaque(index(last))
    tiles = tirx.floordiv(extent + (block - 1), index(block))
    known = as_int(last)
    count: Any = tiles if known is None else -(-known // block)

    def whole(at: At) -> None:
        *lead, t = at
        turned(tuple(lead), b.opaque(tirx.min(t * block, extent - block)))

    def row() -> None:
        b.nest((*outer, count), whole, block * block * (1 + cost), sequential_last=True)

    if known is not None:
        row()
        return
    with b.when(extent >= block):
        row()
    with b.when(extent < block):
        b.nest((*outer, last), lambda at: single(at[:-1], at[-1]), block * (1 + cost), True)


__all__ = ["pack_turned", "turns", "unpack_turned"]
