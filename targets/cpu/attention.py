"""Attention, a few query rows at a time: the whole score matrix is never in memory.

For each tile of rows, the scores ``s = scale * q k^T + mask`` for all keys go into a small buffer,
then ``p = exp(s - max s)``, then ``o = (p v) / sum p``. With 128 keys and 6 rows the buffer has 3
KiB. Keys are packed (transposed) once for each head. Operands may be views with other strides, so
transposes and slices in the same region cost nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tvm import tirx

from ...ir.graph import Graph, Node
from ..generic.broadcast import broadcast_index
from ..generic.ops.attention import attention_scale
from ..generic.registry import Details, Template, TemplateContext
from ..tir.builder import BufferTensor, TensorExpr
from ..tir.extents import as_int, index, static_product
from ..tir.lanes import all_lanes
from ..tir.math import exp_difference
from ..tir.reduce import is_nan, lowest
from .dot import FloatDot
from .features import CpuFeatures
from .microkernel import RegisterTile
from .packing import pack_rows, tiles_of
from .row_tiles import RowTiles
from .tiling import Tile, largest_tile, rank_product_tiles, tile_cost

Expr = Any
At = tuple[Expr, ...]

_PAGE = 4096
"""Bytes between addresses that fall on the same set of the first-level cache."""


def attention(cpu: CpuFeatures) -> Template:
    """The template of float32 ``kiln.Attention`` for one CPU."""

    def template(ctx: TemplateContext) -> None:
        _Attention(ctx, cpu).emit()

    def objection(graph: Graph, node: Node) -> str | None:
        values = [v for v in graph.inputs_of(node)[:3] if v is not None]
        width = values[2].shape[-1] if values[2].rank else None
        if any(v.dtype != "float32" or v.rank != 4 for v in values):
            return "the template of kiln.Attention takes float32 of four axes"
        if not isinstance(width, int) or width % cpu.lanes or width <= 0:
            return f"the template of kiln.Attention takes values of {cpu.lanes} or a multiple"
        return None

    def details(graph: Graph, node: Node) -> Details:
        *_, rows, width = node.out().shape
        tile = _register_tile(cpu, as_int(rows), int(width))
        return Details(tile.covering(as_int(rows)).text(cpu.lanes))

    return Template(template, details, objection)


def _register_tile(cpu: CpuFeatures, rows: int | None, width: int) -> Tile:
    """The largest tile of query rows (None: not known) by elements of a row of the result."""
    tile = largest_tile(cpu, rank_product_tiles(cpu, rows, width)[0].vectors)
    return tile if rows is None else replace(tile, rows=max(1, min(tile.rows, rows)))


class _Attention:
    """One kernel; a task is a head of a batch entry, or some of its query rows."""

    def __init__(self, ctx: TemplateContext, cpu: CpuFeatures) -> None:
        self.ctx = ctx
        self.b = ctx.b
        self.lanes = cpu.lanes
        self.q, self.k, self.v = (self._operand(i) for i in range(3))
        self.batch, self.heads, rows, self.out_width = ctx.out_shape()
        self.keys, self.depth = self.k.shape[2], self.k.shape[3]
        tile = _register_tile(cpu, as_int(rows), int(self.out_width))
        self.limit, self.vectors = tile.rows, tile.vectors
        self.width = tile.vectors * cpu.lanes
        self.tiles = tiles_of(self.keys, self.width)
        heads = static_product((self.batch, self.heads))
        self.row_tiles = RowTiles(self.b, rows, self.limit, heads)
        self.scale = attention_scale(ctx, self.depth, "float32")

    def _operand(self, i: int) -> TensorExpr:
        """An input in memory, or a view of memory."""
        x = self.ctx.input(i)
        return self.ctx.buffered(i) if x.cost else x

    def emit(self) -> None:
        """Pack the keys of all heads first; or if a task has a whole head, it packs that itself."""
        b, rows = self.b, self.row_tiles
        lead = (self.batch, self.heads)
        work = 4 * self.width * (as_int(self.depth) or 64) * (as_int(self.tiles) or 8)
        packed = None
        if as_int(rows.groups) != 1:
            packed = self._memory(lead)
            b.nest(lead, lambda at: self._pack(packed, at, at), work // 2, sequential_last=True)

        def task(at: At) -> None:
            n, h, group = at
            memory: _Packed | None = packed
            where: At = (n, h)
            if memory is None:
                memory, where = self._memory(()), ()
                self._pack(memory, where, (n, h))
            rows.each(group, _Block(self, memory, where, (n, h)).compute)

        cost = tile_cost(work * rows.rows_of_group)
        b.nest((*lead, rows.groups), task, cost, sequential_last=True)

    def _memory(self, lead: tuple[Any, ...]) -> _Packed:
        panels, rows = (self.tiles, self.depth, self.width), (self.keys, self.out_width)
        keys = self.b.workspace((*lead, *panels), "float32", "keys")
        if isinstance(self.v, BufferTensor):
            return _Packed(keys, self.v, copied=False)
        return _Packed(keys, self.b.workspace((*lead, *rows), "float32", "values"), copied=True)

    def _pack(self, out: _Packed, where: At, head: At) -> None:
        b = self.b
        with b.loop(self.tiles) as tile:
            first = tile * self.width
            pack_rows(b, out.keys, (*where, tile), first, self.keys, self.lanes, self.k, head)
        if out.copied:
            with b.loop(self.keys) as t, b.lanes(as_int(self.out_width)) as e:
                out.values.store((*where, t, e), self.v[(*head, t, e)])


@dataclass(frozen=True)
class _Packed:
    """Keys as ``[.., tile, depth, key]`` and values as ``[.., key, width]``.

    ``copied`` tells whether ``values`` is a copy, or the operand itself.
    """

    keys: BufferTensor
    values: BufferTensor
    copied: bool


class _Block:
    """Computes query rows of one head, a tile at a time; ``packed`` holds its keys at ``where``."""

    def __init__(self, a: _Attention, packed: _Packed, where: At, head: At) -> None:
        self.a = a
        self.b = a.b
        self.ctx = a.ctx
        self.lanes = a.lanes
        self.packed, self.where, self.head = packed, where, head
        stride = a.tiles * a.width
        if (as_int(stride) or 1) * 4 % _PAGE == 0:
            stride = stride + a.lanes
        self.scores = self.b.workspace((a.limit, stride), "float32", "scores")
        # One register for each row: the largest score in each lane, and 1 / the sum of weights.
        self.peaks = self.b.local((a.limit, a.lanes), "float32", "peaks")
        self.inverse = self.b.local((a.limit, a.lanes), "float32", "inverse")

    @property
    def _ramp(self) -> Expr:
        return tirx.Ramp(index(0), index(1), self.lanes)

    def _wide(self, value: Expr) -> Expr:
        return tirx.Broadcast(value, self.lanes)

    def compute(self, row: Expr, size: int) -> None:
        """The results of ``size`` rows from ``row`` on."""
        for r in range(size):
            self.peaks.store_raw([index(r), self._ramp], self._wide(lowest("float32")))
        self._scores(row, size)
        with self.b.loop(size) as r:
            self._weights(r)
        self._sums(row, size)

    def _scores(self, row: Expr, size: int) -> None:
        """The scores of all keys, by tiles; a partial last tile has fewer vectors."""
        a, known = self.a, as_int(self.a.keys)
        if known is None:
            keys = index(a.keys)
            whole = self.b.let(tirx.floordiv(keys, index(a.width)), "whole")
            with self.b.loop(whole) as tile:
                self._score_tile(tile, row, size, a.vectors, ragged=False)
            with self.b.when(whole * a.width < keys):
                self._score_tile(whole, row, size, a.vectors, ragged=True)
            return
        count, rest = divmod(known, a.width)
        if count:
            with self.b.loop(count) as tile:
                self._score_tile(tile, row, size, a.vectors, ragged=False)
        if rest:
            vectors, ragged = -(-rest // self.lanes), rest % self.lanes != 0
            self._score_tile(index(count), row, size, vectors, ragged)

    def _score_tile(self, tile: Expr, row: Expr, size: int, vectors: int, ragged: bool) -> None:
        """The scores of one tile of keys, scaled and masked; updates each row's ``peaks``."""
        a, b, lanes = self.a, self.b, self.lanes
        acc = RegisterTile(b, size, vectors, FloatDot(lanes))
        acc.zero()
        acc.reduce(
            (a.depth,),
            lambda r, k: (a.q, (*self.head, row + r, k[0])),
            lambda k: (self.packed.keys, (*self.where, tile, k[0])),
        )
        for r in range(size):
            for v in range(vectors):
                column = b.let(tile * a.width + v * lanes, "column")
                with b.lanes(lanes) as lane:
                    scaled = acc.value(r, v, lane) * a.scale
                    value = b.let(self._masked(scaled, row + r, column + lane, ragged))
                    self.scores.store((r, column + lane), value)
                    self.peaks.store((r, lane), tirx.max(self.peaks[r, lane], value))

    def _masked(self, value: Expr, row: Expr, key: Expr, ragged: bool) -> Expr:
        """The score with the mask added; past the last key, the lowest float, whose weight is 0."""
        keys = index(self.a.keys)
        if self.ctx.has(3):
            mask = self.ctx.input(3)
            column = tirx.min(key, keys - 1) if ragged else key
            scores = (*self.ctx.out_shape()[:3], self.a.keys)
            at = broadcast_index((*self.head, row, column), mask.shape, scores)
            value = value + self.b.let(mask[at])  # read here: TVM drops the clamp in a Select
        return tirx.Select(key < keys, value, lowest("float32")) if ragged else value

    def _weights(self, r: Expr) -> None:
        """Replace the scores of row ``r`` by their exponentials; store 1 / their sum.

        If a score is NaN, or the greatest one infinite, all weights of the row are NaN. Attention
        with the attribute ``guarded`` makes them 0 then.
        """
        b, lanes, ramp = self.b, self.lanes, self._ramp
        total = b.local((lanes,), "float32", "total")
        peak = b.local((lanes,), "float32", "peak")
        peak.store_raw([ramp], all_lanes(b, self.peaks.load_raw([r, ramp]), lanes, tirx.max))
        with b.lanes(lanes) as lane:
            total.store((lane,), tirx.const(0.0, "float32"))
        with b.loop(self._score_vectors()) as j, b.lanes(lanes) as lane:
            at = (r, j * lanes + lane)
            weight = b.let(exp_difference(b, b.let(self.scores[at]), peak[lane]))
            self.scores.store(at, weight)
            total.store((lane,), total[lane] + weight)
        total.store_raw([ramp], all_lanes(b, total.load_raw([ramp]), lanes, lambda x, y: x + y))
        with b.lanes(lanes) as lane:
            self.inverse.store((r, lane), tirx.const(1.0, "float32") / total[lane])
        if self.ctx.attr("guarded"):
            with b.when(is_nan(total[0])):
                self._clear(r)

    def _clear(self, r: Expr) -> None:
        """Set the weights of a row to zero."""
        b, zero = self.b, tirx.const(0.0, "float32")
        with b.loop(self._score_vectors()) as j, b.lanes(self.lanes) as lane:
            self.scores.store((r, j * self.lanes + lane), zero)
        with b.lanes(self.lanes) as lane:
            self.inverse.store((r, lane), zero)

    def _score_vectors(self) -> Any:
        known = as_int(self.a.keys)
        return self.a.tiles * self.a.vectors if known is None else -(-known // self.lanes)

    def _sums(self, row: Expr, size: int) -> None:
        """The weighted sums of values, one tile of columns after the other, to the epilogue."""
        a, b, lanes = self.a, self.b, self.lanes
        chunks = int(a.out_width) // lanes
        values = self.packed.values
        place = self.where if self.packed.copied else self.head
        for start in range(0, chunks, a.vectors):
            count = min(a.vectors, chunks - start)
            acc = RegisterTile(b, size, count, FloatDot(lanes))
            acc.zero()
            acc.reduce(
                (a.keys,),
                lambda r, k: (self.scores, (index(r), k[0])),
                lambda k: (values, (*place, k[0])),
                start * lanes,
            )
            for r in range(size):
                for v in range(count):
                    with b.lanes(lanes) as lane:
                        value = acc.value(r, v, lane) * self.inverse[r, lane]
                        column = (start + v) * lanes + lane
                        self.ctx.sink((*self.head, row + r, column), value)
