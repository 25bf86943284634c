"""Matrix products of two run-time operands: the right one is packed first, tile by tile."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...ir.graph import Graph, Node
from ..generic.broadcast import broadcast_index
from ..generic.registry import Details, Template, TemplateContext
from ..tir.builder import BufferTensor, Builder, TensorExpr
from ..tir.extents import as_int, index, product, static_product, unflatten
from .dot import FloatDot
from .features import CpuFeatures
from .microkernel import RegisterTile
from .packing import pack_columns, tiles_of
from .row_tiles import RowTiles
from .tiling import Tile, largest_tile, rank_product_tiles, tile_cost

Expr = Any


def matmul(cpu: CpuFeatures) -> Template:
    """The template of float32 ``MatMul`` with rank 2 or more for one CPU."""

    def template(ctx: TemplateContext) -> None:
        _Product(ctx, cpu).emit()

    def details(graph: Graph, node: Node) -> Details:
        right = graph.required_inputs(node)[1].shape
        *outer, columns = node.out().shape
        rows = static_product(outer if _is_shared(right) else outer[-1:])
        tile = register_tile(cpu, rows, as_int(columns))
        return Details(tile.covering(rows).text(cpu.lanes))

    return Template(template, details, _objection)


def _is_shared(right: Sequence[Any]) -> bool:
    """Has the right operand no batch of its own? Then the left one's batch is just more rows."""
    return all(as_int(d) == 1 for d in right[:-2])


def register_tile(cpu: CpuFeatures, rows: int | None, columns: int | None) -> Tile:
    """The register tile for so many rows and columns of the result (None: not known)."""
    wanted = 2 * cpu.lanes if columns is None else columns
    return largest_tile(cpu, rank_product_tiles(cpu, rows, wanted)[0].vectors)


def _objection(graph: Graph, node: Node) -> str | None:
    a, b = graph.required_inputs(node)
    if a.dtype != "float32" or b.dtype != "float32":
        return f"the template of MatMul takes float32, not {a.dtype}"
    if a.rank < 2 or b.rank < 2:
        return "the template of MatMul takes matrices, not vectors"
    return None


class _Product:
    """One product; a task is a tile of columns, in one matrix of the batch, and a group of rows."""

    def __init__(self, ctx: TemplateContext, cpu: CpuFeatures) -> None:
        self.ctx = ctx
        self.b = ctx.b
        self.cpu = cpu
        self.right = ctx.input(1)
        left, shape = ctx.buffered(0), ctx.out_shape()
        self.outer, self.columns, self.depth = shape[:-1], shape[-1], left.shape[-1]
        if _is_shared(self.right.shape):
            rows = product(self.outer)
            self.batch: tuple[Any, ...] = ()
            self.left = self.b.view(left, (rows, self.depth))
        else:
            *batch, rows = self.outer
            self.batch, self.left = tuple(batch), left
        tile = register_tile(cpu, as_int(rows), as_int(self.columns))
        self.vectors = tile.vectors
        self.width = tile.vectors * cpu.lanes
        self.tiles = tiles_of(self.columns, self.width)
        self.row_tiles = RowTiles(self.b, rows, tile.rows, self._others())

    def _others(self) -> int | None:
        return static_product((*self.batch, self.tiles))

    def emit(self) -> None:
        """Pack all tiles of columns first, then multiply.

        If only one task uses a tile of columns, it packs that itself, and finds it in its cache.
        """
        rows, b = self.row_tiles, self.b
        spread = as_int(rows.groups) != 1
        lead = (*self.batch, self.tiles)
        entries = self.width * (as_int(self.depth) or 64)
        panel = (self.depth, self.width)
        whole = b.workspace((*lead, *panel), "float32", "packed") if spread else None
        if whole is not None:
            b.nest(lead, lambda at: self._pack(whole, at, at), entries, sequential_last=True)

        def task(at: tuple[Expr, ...]) -> None:
            *source, group = at
            packed, where = whole, tuple(source)
            if packed is None:
                packed, where = b.workspace(panel, "float32", "packed"), ()
                self._pack(packed, where, tuple(source))
            rows.each(group, lambda row, size: self._tile(packed, where, at, row, size))

        work = tile_cost(2 * entries * rows.rows_of_group)
        b.nest((*lead, rows.groups), task, work, sequential_last=True)

    def _pack(self, out: BufferTensor, where: tuple[Expr, ...], source: tuple[Expr, ...]) -> None:
        """Pack the tile ``source`` (batch and columns) to ``out[*where]``."""
        *batch, tile = source
        chosen = tuple(batch) or (index(0),) * (self.right.rank - 2)

        def element(k: Expr, column: Expr) -> Expr:
            return self.right[self._place(self.right, chosen, k, column)]

        pack_columns(self.b, out, where, tile, self.depth, self.columns, self.width, element)

    def _place(
        self, x: TensorExpr, at: tuple[Expr, ...], row: Expr, column: Expr
    ) -> tuple[Expr, ...]:
        """The index of an element of ``x``, in the matrix that belongs to batch index ``at``."""
        own = x.shape[:-2]
        full = self.batch or own
        return (*broadcast_index(at, own, full), row, column)

    def _tile(
        self, packed: BufferTensor, where: tuple[Expr, ...], at: tuple[Expr, ...], row: Expr,
        size: int,
    ) -> None:  # fmt: skip
        """One register tile: ``size`` rows from ``row`` on, and the columns of the packed tile."""
        *batch, tile, _group = at
        lanes = self.cpu.lanes
        acc = RegisterTile(self.b, size, self.vectors, FloatDot(lanes))
        acc.zero()
        acc.reduce(
            (self.depth,),
            lambda r, k: (self.left, self._place(self.left, tuple(batch), row + r, k[0])),
            lambda k: (packed, (*where, k[0])),
        )
        for v in range(self.vectors):
            for r in range(size):
                at_row = (*batch, row + r) if self.batch else unflatten(row + r, self.outer)
                self._store(acc, r, v, at_row, tile)

    def _store(
        self, acc: RegisterTile, r: int, v: int, place: tuple[Expr, ...], tile: Expr
    ) -> None:
        lanes = self.cpu.lanes
        first = tile * self.width + v * lanes

        def element(lane: Expr) -> None:
            self.ctx.sink((*place, first + lane), acc.value(r, v, lane))

        store_vector(self.b, Columns(self.columns, self.width, lanes), tile, v, element)


@dataclass(frozen=True)
class Columns:
    """``count`` columns of a result in tiles of ``width``, which are vectors of ``lanes``."""

    count: Any
    width: int
    lanes: int

    def of_last(self, vector: int) -> int:
        """Lanes of a vector that the last tile has, where the number of columns is known."""
        rest = int(self.count) % self.width or self.width
        return min(self.lanes, max(0, rest - vector * self.lanes))

    def always(self, vector: int) -> bool:
        """Has every tile all lanes of a vector?"""
        return as_int(self.count) is not None and self.of_last(vector) == self.lanes


def store_vector(
    b: Builder, columns: Columns, tile: Expr, vector: int, element: Callable[[Expr], None]
) -> None:
    """Call ``element(lane)`` for each lane of a vector of a tile, without those past the last
    column.

    Where the number of columns is known, so is what the last tile holds of each of its vectors.
    """
    known = as_int(columns.count)
    if known is None:
        _store_open(b, columns, tile * columns.width + vector * columns.lanes, element)
        return
    whole, last = (known - 1) // columns.width, columns.of_last(vector)
    if last == columns.lanes:
        with b.lanes(columns.lanes) as lane:
            element(lane)
        return
    if whole:
        with b.when(tile < index(whole)), b.lanes(columns.lanes) as lane:
            element(lane)
    if last:
        with b.when(tile >= index(whole) if whole else None), b.lanes(last) as lane:
            element(lane)


def _store_open(b: Builder, columns: Columns, first: Expr, element: Callable[[Expr], None]) -> None:
    """:func:`store_vector` for a vector from column ``first`` on, of a number that is not known."""
    count = index(columns.count)
    fits = first + columns.lanes <= count
    with b.when(fits), b.lanes(columns.lanes) as lane:
        element(lane)
    rest = tirx.max(count - first, index(0))
    with b.when(tirx.Not(fits)), b.loop(rest) as lane:
        element(lane)
