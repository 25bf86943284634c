"""Attention, a block of query rows at a time: the score matrix is never whole in memory.

For each block of rows: scores ``s = scale * q k^T + mask`` for all keys into a small workspace,
``p = exp(s - max s)``, ``o = (p v) / sum p``. Keys are packed transposed once per head.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...ir.graph import Graph, Node
from ..generic.ops.attention import attention_scale
from ..generic.registry import Template, TemplateContext
from ..tir.builder import BufferTensor, as_int, index
from ..tir.math import exp
from .dot import FloatDot
from .features import CpuFeatures
from .microkernel import RegisterTile
from .packing import pack_columns, tiles_of
from .tiling import accumulator_budget, cover

Expr = Any

_VECTORS = 2
_LOWEST = -3.0e38


def attention(cpu: CpuFeatures) -> Template:
    """The template of float32 ``kiln.Attention`` for one CPU."""

    def template(ctx: TemplateContext) -> None:
        _Attention(ctx, cpu).emit()

    def accepts(graph: Graph, node: Node) -> bool:
        values = [v for v in graph.inputs_of(node) if v is not None]
        width = values[2].shape[-1] if len(values) > 2 else None
        whole = isinstance(width, int) and width % cpu.lanes == 0 and width > 0
        return whole and all(v.dtype == "float32" and v.rank == 4 for v in values[:3])

    return Template(template, accepts)


class _Attention:
    def __init__(self, ctx: TemplateContext, cpu: CpuFeatures) -> None:
        self.ctx = ctx
        self.b = ctx.b
        self.lanes = cpu.lanes
        self.q, self.k, self.v = ctx.buffered(0), ctx.buffered(1), ctx.buffered(2)
        self.batch, self.heads, self.rows, self.out_width = ctx.out_shape()
        self.keys, self.depth = self.k.shape[2], self.k.shape[3]
        self.width = _VECTORS * self.lanes
        self.tiles = tiles_of(self.keys, self.width)
        self.limit = accumulator_budget(cpu, _VECTORS)
        self.scale = attention_scale(ctx, self.depth, "float32")

    def emit(self) -> None:
        b = self.b
        lead = (self.batch, self.heads)
        packed = b.workspace((*lead, self.tiles, self.depth, self.width), "float32", "keys")

        def pack(at: tuple[Expr, ...]) -> None:
            n, h, tile = at
            pack_columns(
                b, packed, at, tile, self.depth, self.keys, self.width,
                lambda k, column: self.k[n, h, column, k], transposed=True,
            )  # fmt: skip

        cost = 4 * self.width * (as_int(self.depth) or 64)
        b.nest((*lead, self.tiles), pack, cost, sequential_last=True)
        known = as_int(self.rows)
        work = self.limit * cost * (as_int(self.tiles) or 8)
        if known is None:
            full = tirx.floordiv(index(self.rows), index(self.limit))
            self._blocks(packed, index(0), full, self.limit, work)
            rest = index(self.rows) - full * self.limit
            self._blocks(packed, full * self.limit, rest, 1, work)
            return
        start = 0
        for size, count in cover(known, self.limit):
            self._blocks(packed, index(start), count, size, work)
            start += size * count

    def _blocks(self, packed: BufferTensor, start: Expr, count: Any, size: int, cost: int) -> None:
        b = self.b

        def block(at: tuple[Expr, ...]) -> None:
            n, h, c = at
            row = b.let(start + c * size, "row")
            scores = b.workspace((size, self.tiles * self.width), "float32", "scores")
            self._scores(packed, scores, n, h, row, size)
            sums = b.local((size,), "float32", "sum")
            self._softmax(scores, sums, size)
            self._weighted(scores, sums, n, h, row, size)

        b.nest((self.batch, self.heads, count), block, cost, sequential_last=True)

    def _scores(
        self, packed: BufferTensor, scores: BufferTensor, n: Expr, h: Expr, row: Expr, size: int
    ) -> None:
        b, lanes = self.b, self.lanes
        with b.loop(self.tiles) as tile:
            acc = RegisterTile(b, size, _VECTORS, FloatDot(lanes))
            acc.zero()
            acc.reduce(
                (self.depth,),
                lambda r, k: (self.q, (n, h, row + r, k[0])),
                lambda k: (packed, (n, h, tile, k[0])),
            )
            for r in range(size):
                for v in range(_VECTORS):
                    column = b.let(tile * self.width + v * lanes, "column")
                    with b.lanes(lanes) as lane:
                        at = column + lane
                        value = acc.value(r, v, lane) * self.scale
                        scores.store((index(r), at), self._masked(value, n, h, row + r, at))

    def _masked(self, value: Expr, n: Expr, h: Expr, row: Expr, key: Expr) -> Expr:
        """Add the mask; keys past the end get a score that vanishes."""
        inside = None
        known = as_int(self.keys)
        if known is None or known % self.width:
            inside = key < index(self.keys)
        if self.ctx.has(3):
            mask = self.ctx.input(3)
            clamped = key if inside is None else tirx.min(key, index(self.keys) - 1)
            place = (n, h, row, clamped)[4 - mask.rank :]
            at = tuple(
                index(0) if as_int(d) == 1 else i for d, i in zip(mask.shape, place, strict=True)
            )
            value = value + mask[at]
        low = tirx.const(_LOWEST, "float32")
        value = tirx.max(value, low)  # a mask of -inf in every place must not give NaN
        return value if inside is None else tirx.Select(inside, value, low)

    def _softmax(self, scores: BufferTensor, sums: BufferTensor, size: int) -> None:
        """Exponentials in place, and their sums; padded keys count nothing."""
        b, lanes = self.b, self.lanes
        vectors = self.tiles * _VECTORS
        with b.loop(size) as r:
            top = b.local((lanes,), "float32", "top")
            with b.lanes(lanes) as lane:
                top.store((lane,), scores[r, lane])
            with b.loop(vectors) as j, b.lanes(lanes) as lane:
                top.store((lane,), tirx.max(top[lane], scores[r, j * lanes + lane]))
            peak = b.scalar("float32", top[0])
            with b.loop(lanes) as lane:
                peak.set(tirx.max(peak.get(), top[lane]))
            high = b.let(peak.get(), "peak")
            total = b.local((lanes,), "float32", "total")
            with b.lanes(lanes) as lane:
                total.store((lane,), tirx.const(0.0, "float32"))
            with b.loop(vectors) as j, b.lanes(lanes) as lane:
                at = j * lanes + lane
                weight = self._weight(b.let(scores[r, at], "s"), high, at)
                scores.store((r, at), weight)
                total.store((lane,), total[lane] + scores[r, at])
            whole = b.scalar("float32", 0.0)
            with b.loop(lanes) as lane:
                whole.set(whole.get() + total[lane])
            sums.store((r,), whole.get())

    def _weight(self, score: Expr, high: Expr, key: Expr) -> Expr:
        value = exp(self.b, score - high)
        known = as_int(self.keys)
        if known is not None and known % self.width == 0:
            return value
        return tirx.Select(key < index(self.keys), value, tirx.const(0.0, "float32"))

    def _weighted(
        self, scores: BufferTensor, sums: BufferTensor, n: Expr, h: Expr, row: Expr, size: int
    ) -> None:
        b, lanes = self.b, self.lanes
        chunks = int(self.out_width) // lanes
        start = 0
        while start < chunks:
            count = min(_VECTORS, chunks - start)
            acc = RegisterTile(b, size, count, FloatDot(lanes))
            acc.zero()
            first = start
            acc.reduce(
                (self.keys,),
                lambda r, k: (scores, (index(r), k[0])),
                lambda k: (self.v, (n, h, k[0])),
                first * lanes,
            )
            for r in range(size):
                for v in range(count):
                    with b.lanes(lanes) as lane:
                        value = acc.value(r, v, lane) / sums[r]
                        self.ctx.sink((n, h, row + r, (first + v) * lanes + lane), value)
            start += count
