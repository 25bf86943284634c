"""Matrix products of two run-time operands: the right one is packed first, tile by tile."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...ir.graph import Graph, Node
from ..generic.registry import Template, TemplateContext
from ..tir.builder import TensorExpr, as_int, index
from .dot import FloatDot
from .features import CpuFeatures
from .microkernel import RegisterTile
from .packing import pack_columns, tiles_of
from .tiling import Tile, accumulator_budget, choose_tile, cover

Expr = Any


def matmul(cpu: CpuFeatures) -> Template:
    """The template of float32 ``MatMul`` with rank 2 or more for one CPU."""

    def template(ctx: TemplateContext) -> None:
        _Product(ctx, cpu).emit()

    return Template(template, _accepts)


def _accepts(graph: Graph, node: Node) -> bool:
    a, b = graph.inputs_of(node)
    return (
        a is not None and b is not None and a.dtype == b.dtype == "float32"
        and a.rank >= 2 and b.rank >= 2
    )  # fmt: skip


class _Product:
    def __init__(self, ctx: TemplateContext, cpu: CpuFeatures) -> None:
        self.ctx = ctx
        self.b = ctx.b
        self.cpu = cpu
        self.left, self.right = ctx.buffered(0), ctx.input(1)
        *self.batch, self.rows, self.columns = ctx.out_shape()
        self.depth = self.left.shape[-1]
        self.tile = self._choose()
        self.width = self.tile.vectors * cpu.lanes
        self.tiles = tiles_of(self.columns, self.width)

    def _choose(self) -> Tile:
        known = as_int(self.columns)
        vectors = 2 if known is None else -(-known // self.cpu.lanes)
        tile = choose_tile(self.cpu, as_int(self.rows), vectors)
        return Tile(accumulator_budget(self.cpu, tile.vectors), tile.vectors)

    def emit(self) -> None:
        shared = all(as_int(d) == 1 for d in self.right.shape[:-2])
        lead = () if shared else tuple(self.batch)
        packed = self.b.workspace((*lead, self.tiles, self.depth, self.width), "float32", "packed")
        def pack(at: tuple[Expr, ...]) -> None:
            *batch, tile = at
            chosen = tuple(batch) or (index(0),) * (self.right.rank - 2)

            def element(k: Expr, column: Expr) -> Expr:
                return self.right[_place(self.right, chosen, k, column)]

            pack_columns(
                self.b, packed, at, tile, self.depth, self.columns, self.width, element
            )

        cost = 2 * self.width * (as_int(self.depth) or 64)
        self.b.nest((*lead, self.tiles), pack, cost, sequential_last=True)
        known = as_int(self.rows)
        limit = self.tile.rows

        def task(at: tuple[Expr, ...]) -> None:
            *batch, tile = at
            source = (*(() if shared else batch), tile)
            start: Any = index(0)
            if known is None:
                full = tirx.floordiv(index(self.rows), index(limit))
                with self.b.loop(full) as c:
                    self._tile(packed, source, tuple(batch), tile, c * limit, limit)
                with self.b.loop(index(self.rows) - full * limit) as c:
                    self._tile(packed, source, tuple(batch), tile, full * limit + c, 1)
                return
            for size, count in cover(known, limit):
                with self.b.loop(count) as c:
                    self._tile(packed, source, tuple(batch), tile, start + c * size, size)
                start = start + size * count

        self.b.nest((*self.batch, self.tiles), task, cost * (known or 64), sequential_last=True)

    def _tile(
        self, packed: Any, source: tuple[Expr, ...], batch: tuple[Expr, ...], tile: Expr,
        row: Expr, size: int,
    ) -> None:  # fmt: skip
        lanes = self.cpu.lanes
        acc = RegisterTile(self.b, size, self.tile.vectors, FloatDot(lanes))
        acc.zero()
        acc.reduce(
            (self.depth,),
            lambda r, k: (self.left, _place(self.left, batch, row + r, k[0])),
            lambda k: (packed, (*source, k[0])),
        )
        for v in range(self.tile.vectors):
            column = tile * self.width + v * lanes
            for r in range(size):
                self._store(acc, r, v, (*batch, row + r), column)

    def _store(
        self, acc: RegisterTile, r: int, v: int, place: tuple[Expr, ...], column: Expr
    ) -> None:
        store_vector(
            self.ctx, self.columns, self.cpu.lanes, self.width, column,
            lambda lane: self.ctx.sink((*place, column + lane), acc.value(r, v, lane)),
        )  # fmt: skip


def store_vector(
    ctx: TemplateContext, columns: Any, lanes: int, width: int, column: Expr, element: Any
) -> None:
    """Call ``element(lane)`` for a vector of columns, in the last tile only for real ones."""
    b = ctx.b
    known = as_int(columns)
    if known is not None and known % width == 0:
        with b.lanes(lanes) as lane:
            element(lane)
        return
    fits = column + lanes <= index(columns)
    with b.when(fits), b.lanes(lanes) as lane:
        element(lane)
    rest = tirx.max(index(columns) - column, index(0))
    with b.when(tirx.Not(fits)), b.loop(rest) as lane:
        element(lane)


def _place(x: TensorExpr, batch: tuple[Expr, ...], row: Expr, column: Expr) -> tuple[Expr, ...]:
    """The index of an element of a matrix of a batch that broadcasts."""
    own = x.shape[:-2]
    lead = batch[len(batch) - len(own) :]
    at = tuple(index(0) if as_int(d) == 1 else i for d, i in zip(own, lead, strict=True))
    return (*at, row, column)
