"""A direct convolution of any spatial rank, on plain layouts.

A task computes a tile of output channels, rows and columns, whose sums stay in registers while it
loops over the input channels and the kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tvm import tirx

from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import as_int, index, static_product
from ...tir.numeric import cast, storage_dtype
from ...tir.partial import vector_lanes
from .conv_rows import Columns, Geometry, Rows

ACCUMULATORS = {64: 8, 32: 12, 16: 16}
"""Vector registers of partial sums that a task keeps, by the bytes of a vector."""

Finish = Callable[[Expr, Expr, "Expr | None"], Expr]


@dataclass(frozen=True)
class Convolution:
    """``out = finish(x * w)``: x (N, C, ...), w (M, C/groups, ...), out (N, M, ...).

    ``x`` and ``w`` are copied, if needed, to the dtype ``operand``, which must hold them exactly.
    Products are summed in ``dtype``; padding counts as zero. ``finish`` gets a sum, its output
    channel and the element of ``residual`` at the output's index.
    """

    x: TensorExpr
    w: TensorExpr
    geometry: Geometry
    groups: int
    operand: str
    dtype: str
    out: BufferTensor
    finish: Finish
    residual: BufferTensor | None = None


@dataclass(frozen=True)
class Tile:
    """Output channels, rows and columns of one task."""

    channels: int
    rows: int
    columns: int

    @property
    def size(self) -> int:
        return self.channels * self.rows * self.columns

    def row(self, r: int, o: int) -> int:
        """The first accumulator of channel ``r``, row ``o``."""
        return (r * self.rows + o) * self.columns


def choose_tile(b: Builder, dtype: str, channels: Any, rows: Any, columns: Any) -> Tile:
    """A tile of sums of ``dtype`` that fits the extents and the registers."""
    width = vector_lanes(dtype, b.loops.vector_bytes)
    if width == 1:
        return Tile(1, 1, 1)
    known = as_int(columns)
    widths = [1 << p for p in range((2 * width).bit_length())]
    lanes = width if known is None else next((w for w in widths if known <= w), widths[-1])
    registers = ACCUMULATORS.get(b.loops.vector_bytes, 8)
    limit = max(1, registers * width // max(lanes, width // 2))
    tall = balanced(as_int(channels), limit)
    return Tile(tall, balanced(as_int(rows), limit // tall), lanes)


def balanced(extent: int | None, limit: int) -> int:
    """The block size, at most ``limit``, with the fewest and most equal blocks for ``extent``."""
    if extent is None or extent < 1:
        return 1
    return -(-extent // -(-extent // limit))


def blocks_of(extent: Any, block: int) -> Any:
    """Blocks that cover ``extent`` (which is known where ``block`` is not 1)."""
    known = as_int(extent)
    return extent if known is None else -(-known // block)


def block_start(b: Builder, block: Expr, size: int, extent: Any) -> Expr:
    """The first index of a block; a last one that is not full begins earlier, to be a full one."""
    known = as_int(extent)
    if known is None or known % size == 0:
        return block * size
    return b.let(tirx.min(block * size, index(known - size)), "start")


def in_memory(b: Builder, x: TensorExpr, dtype: str) -> BufferTensor:
    """``x`` in memory with elements of ``dtype``."""
    if isinstance(x, BufferTensor) and storage_dtype(x.dtype) == dtype:
        return x
    return b.materialize(TensorExpr(dtype, x.shape, lambda at: cast(x.load(at), dtype), x.cost))


def divided(extent: Any, by: int) -> Any:
    known = as_int(extent)
    return tirx.floordiv(extent, index(by)) if known is None else known // by


def direct_conv(b: Builder, conv: Convolution) -> None:
    """Emit the loops of a convolution."""
    if conv.geometry.is_pointwise and len(conv.geometry.kernel) > 1:
        conv = _flattened(b, conv)
    batch, filters, *spatial = conv.out.shape
    *outer, width = spatial
    per_group = divided(filters, conv.groups)
    tile = choose_tile(b, conv.dtype, per_group, outer[-1] if outer else 1, width)
    columns = Columns(width, tile.columns)
    outside = tirx.const(0, conv.operand)
    rows = Rows.of(b, conv.x, conv.geometry, spatial, columns, outside)
    weights = in_memory(b, conv.w, conv.operand)
    depth = weights.shape[1]

    def body(at: tuple[Expr, ...]) -> None:
        n, g, block, *lead = at
        m = b.let(g * per_group + block_start(b, block, tile.channels, per_group))
        if outer:
            lead[-1] = block_start(b, lead[-1], tile.rows, outer[-1])
        with b.loop(columns.count) as t:
            start = b.let(columns.start(t))
            sums = b.local((tile.size,), conv.dtype)
            clear(b, sums, tile)
            with b.grid(depth, *conv.geometry.kernel) as (c, *k):
                step = _Step(b, tile, sums, weights, rows)
                step.accumulate((n, g * depth + c, *lead), (m, c), k, start)
            _emit(b, conv, sums, tile, columns, (n, m, *lead), start)

    blocks = [blocks_of(per_group, tile.channels), *outer[:-1]]
    blocks += [blocks_of(e, tile.rows) for e in outer[-1:]]
    work = static_product((*weights.shape[1:], tile.size, columns.count)) or 1 << 16
    b.nest((batch, conv.groups, *blocks), body, work, sequential_last=True)


def _flattened(b: Builder, conv: Convolution) -> Convolution:
    """A pointwise convolution over one long spatial dim."""

    def flat(t: TensorExpr) -> BufferTensor:
        total = static_product(t.shape[2:])
        last: Any = total
        if total is None:
            last = index(1)
            for e in t.shape[2:]:
                last = last * index(e)
        return b.view(b.materialize(t), (*t.shape[:2], last))

    g = conv.geometry
    line = Geometry(g.kernel[:1], g.strides[:1], g.dilations[:1], (0,), (False,))
    residual = None if conv.residual is None else flat(conv.residual)
    return replace(
        conv, x=flat(conv.x), w=flat(conv.w), geometry=line, out=flat(conv.out), residual=residual
    )


def clear(b: Builder, sums: BufferTensor, tile: Tile) -> None:
    """Set a tile's accumulators to zero."""
    zero = tirx.const(0, sums.compute_dtype)
    for r in range(tile.channels * tile.rows):
        with b.lanes(tile.columns) as lane:
            sums.store((r * tile.columns + lane,), zero)


@dataclass(frozen=True)
class _Step:
    """One kernel position of one input channel, for the whole tile."""

    b: Builder
    tile: Tile
    sums: BufferTensor
    weights: BufferTensor
    rows: Rows

    def accumulate(self, source: Sequence[Expr], filters: tuple[Expr, Expr], k: Sequence[Expr],
                   start: Expr) -> None:  # fmt: skip
        n, c, *lead = source
        m, depth = filters
        b, tile = self.b, self.tile
        dtype = self.sums.dtype
        filter_rows = range(tile.channels)
        weights = [cast(self.weights.at(m + r, depth, *k), dtype) for r in filter_rows]
        for o in range(tile.rows):
            located = self.rows.locate(n, c, line_at(lead, o), k)
            for r, weight in enumerate(weights):
                base = tile.row(r, o)
                with b.lanes(tile.columns) as lane:
                    product = weight * cast(self.rows.load(located, start + lane), dtype)
                    self.sums.store((base + lane,), self.sums[base + lane] + product)


def line_at(lead: Sequence[Expr], o: int) -> list[Expr]:
    """Outer spatial indices of row ``o`` of a tile that starts at ``lead``."""
    return [*lead[:-1], lead[-1] + o] if lead else []


def _emit(
    b: Builder, conv: Convolution, sums: BufferTensor, tile: Tile, columns: Columns,
    at: Sequence[Expr], start: Expr,
) -> None:  # fmt: skip
    n, m, *lead = at

    def write(r: int, o: int, lane: Expr) -> None:
        where = (n, m + r, *line_at(lead, o), start + lane)
        old = None if conv.residual is None else conv.residual[where]
        conv.out.store(where, conv.finish(sums[tile.row(r, o) + lane], m + r, old))

    for r in range(tile.channels):
        for o in range(tile.rows):
            columns.each(b, start, partial(write, r, o))


__all__ = [
    "Convolution", "Finish", "Tile", "block_start", "blocks_of", "choose_tile", "clear",
    "direct_conv", "divided", "in_memory",
]  # fmt: skip
