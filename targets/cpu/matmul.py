"""Matrix products with packed weights: ``y[m, n] = sum_k x[m, k] * w[k, n]``.

``x`` is float32 and so are the sums, while the weights may be stored in 8 or 16 bits and are
converted where they are loaded. Or both are 8-bit integers, whose products are summed in int32.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx

from ...ir.choices import DIRECT, LISTED
from ...ir.graph import Graph, Node
from ...ir.registry import attribute
from ..generic.registry import Details, Template, TemplateContext, operand_types
from ..tir.builder import BufferTensor, Builder
from ..tir.extents import as_int, index, product, static_product, unflatten
from ..tir.numeric import cast
from .dot import dot_of, packed_tile
from .features import CpuFeatures
from .kernel_shapes import packed_width, product_shape_of
from .matmul_dynamic import Columns, store_vector
from .microkernel import RegisterTile, Weights
from .narrow import byte_packer, store_vectors
from .prefetch import NextTile, lines_of_tile, steps_of_turn
from .residual import Residual
from .row_tiles import RowTiles
from .tiling import tile_cost

Expr = Any
At = tuple[Expr, ...]

_FEWEST = 8
"""Rows from which operands are put into the order of the steps where these are listed."""
_MOST_USES = 64
"""Weights that more tiles of rows use are not prefetched: only the first use has to wait."""


def matmul_packed(cpu: CpuFeatures) -> Template:
    """The template of ``kiln.MatMulPacked`` for one CPU."""

    def template(ctx: TemplateContext) -> None:
        _Packed(ctx, cpu).emit()

    def details(graph: Graph, node: Node) -> Details:
        x, w = operand_types(graph, node, 2)
        depth, width = int(attribute(node, "depth")), packed_width(graph, node)
        lanes = min(cpu.lanes, width // depth)
        tile = packed_tile(cpu, x.dtype.name, width, depth, lanes)
        text = tile.covering(static_product(x.dims[:-1])).text(lanes)
        return Details(text, DIRECT if w.dims[-1] else LISTED)

    return Template(template, details, shape=product_shape_of)


class _Packed:
    """One product; a task is a tile of columns and a group of tiles of rows."""

    def __init__(self, ctx: TemplateContext, cpu: CpuFeatures) -> None:
        self.ctx = ctx
        self.b = ctx.b
        self.weight = ctx.buffered(1)
        x, depth = ctx.buffered(0), int(ctx.attr("depth"))
        self.tiles, self.steps, own = (int(d) for d in self.weight.shape)
        self.is_listed = own == 0
        width = packed_width(ctx.graph, ctx.node)
        self.tile_width = width // depth
        self.lanes = min(cpu.lanes, self.tile_width)
        self.dot = dot_of(cpu, x.dtype, depth, self.lanes)
        tile = packed_tile(cpu, x.dtype, width, depth, self.lanes)
        self.vectors = tile.vectors
        self.outer = x.shape[:-1]
        self.rows = product(self.outer)
        self.x = whole_steps(self.b, self.b.view(x, (self.rows, x.shape[-1])), depth)
        self.by_step = self.is_listed and (as_int(self.rows) or _FEWEST) >= _FEWEST
        if self.by_step:
            self.x = step_major(self.b, self.x, depth)
        self.columns = int(ctx.attr("columns"))
        self.row_tiles = RowTiles(self.b, self.rows, tile.rows, self.tiles)
        self.residual = Residual(
            ctx, self.x, depth, lambda step: self._place(index(0), step), self.by_step
        )
        self.pack = byte_packer(cpu) if self.lanes == cpu.lanes else None
        self.every = self.steps
        self.ahead = self._prefetch()

    def _prefetch(self) -> NextTile | None:
        """The prefetching of weights, or None.

        It pays where a tile of weights is used several times, so that there is time to load the
        next one, and where there are enough tiles for one core to work on them one by one.
        """
        uses = self.row_tiles.tiles
        wrong = uses is not None and not 2 <= uses <= _MOST_USES
        if self.is_listed or wrong or self.tiles < self.b.loops.busy:
            return None
        every = steps_of_turn(self.steps, lines_of_tile(self.weight, self.tiles), uses)
        if not every:
            return None
        self.every = every
        return NextTile(self.b, self.weight, self.tiles, uses, self.steps // self.every)

    def emit(self) -> None:
        rows = self.row_tiles
        depth = self.steps * self.dot.depth
        cost = tile_cost(2 * depth * self.tile_width * rows.rows_of_group)

        def task(at: tuple[Expr, ...]) -> None:
            tile, group = at
            weights = self._weights(tile)
            rows.each(group, lambda row, size: self._tile(weights, tile, row, size))

        self.b.nest((self.tiles, rows.groups), task, cost, sequential_last=True)

    def _weights(self, tile: Expr) -> Callable[[Expr], Weights]:
        """The weights of a tile, by the step of the reduction.

        Weights that are stored in fewer bits are converted to float32 first, into a panel, if
        several tiles of rows use them.
        """
        if not self._converts():
            return lambda k: (self.weight, (tile, k))
        panel = self.b.workspace((self.steps, self.tile_width), "float32", "panel")
        with self.b.loop(self.steps) as k, self.b.lanes(self.tile_width) as c:
            panel.store((k, c), cast(self.weight[tile, k, c], "float32"))
        return lambda k: (panel, (k,))

    def _converts(self) -> bool:
        several = self.row_tiles.tiles is None or self.row_tiles.tiles > 1
        return several and self.dot.sums == "float32" and self.weight.dtype != "float32"

    def _tile(self, weights: Callable[[Expr], Weights], tile: Expr, row: Expr, size: int) -> None:
        acc = RegisterTile(self.b, size, self.vectors, self.dot)
        acc.zero()
        self._reduce(acc, weights, tile, row)
        columns = Columns(self.columns, self.tile_width, self.lanes)
        whole = [v for v in range(self.vectors) if columns.always(v)]
        for r in range(size):
            place = unflatten(row + r, self.outer) if self.outer else ()
            self._store_whole(acc, r, whole, place, tile)
        for v in range(len(whole), self.vectors):
            for r in range(size):
                place = unflatten(row + r, self.outer) if self.outer else ()
                element = self._element(acc, r, v, place, tile)
                store_vector(self.b, columns, tile, v, element)

    def _reduce(
        self, acc: RegisterTile, weights: Callable[[Expr], Weights], tile: Expr, first: Expr
    ) -> None:
        """Add all products of the rows from ``first`` on."""

        def place(r: int) -> At:
            return self._place(first + r, index(0))

        if self.is_listed:
            self.residual.add_alone(acc, tile, place)
            return
        use = self.row_tiles.number(first)
        with self.b.loop(self.steps // self.every) as turn:
            if self.ahead is not None:
                self.ahead.fetch(tile, use, turn)
            with self.b.loop(self.every) as inner:
                k = turn * self.every + inner
                acc.step(lambda r: (self.x, (first + r, k)), weights(k))
        self.residual.add(acc, tile, place)

    def _place(self, row: Expr, step: Expr) -> At:
        """The index in ``x`` of a row's operand for a listed step, counted in steps."""
        return (step, row, index(0)) if self.by_step else (row, step)

    def _store_whole(
        self, acc: RegisterTile, r: int, vectors: Sequence[int], place: At, tile: Expr
    ) -> None:
        """Give vectors of a row, which every tile has, to the epilogue."""
        base = tile * self.tile_width
        places = [(*place, base + v * self.lanes) for v in vectors]

        def value(i: int, lane: Expr) -> Expr:
            return self._total(acc, r, vectors[i], base + vectors[i] * self.lanes, lane)

        store_vectors(self.ctx, places, value, self.lanes, self.pack)

    def _element(
        self, acc: RegisterTile, r: int, v: int, place: At, tile: Expr
    ) -> Callable[[Expr], None]:
        """What gives a lane of a vector of a row to the epilogue."""
        column = tile * self.tile_width + v * self.lanes
        return lambda lane: self.ctx.sink(
            (*place, column + lane), self._total(acc, r, v, column, lane)
        )

    def _total(self, acc: RegisterTile, r: int, v: int, column: Expr, lane: Expr) -> Expr:
        """A sum and the bias; ``column`` is that of the vector's first lane."""
        value = acc.value(r, v, lane)
        return value + self.ctx.input(2)[(column + lane,)] if self.ctx.has(2) else value


def step_major(b: Builder, x: BufferTensor, depth: int) -> BufferTensor:
    """``x`` ``[rows, K]`` copied to ``[K/depth, rows, depth]``.

    Listed steps jump through a row, and would use a part of each line of memory that they load;
    here the operands of all rows of a tile are neighbours.
    """
    rows, inner = x.shape
    copy = b.workspace((index(inner) // depth, rows, depth), x.dtype, "steps")

    def element(at: tuple[Expr, ...]) -> None:
        step, row, i = at
        copy.store(at, x[row, step * depth + i])

    b.nest(copy.shape, element)
    return copy


def whole_steps(b: Builder, x: BufferTensor, depth: int) -> BufferTensor:
    """``x`` ``[rows, K]``, copied if needed so that ``K`` is a multiple of ``depth``.

    What the copy adds is multiplied by weights that are zero.
    """
    rows, inner = x.shape
    known = as_int(inner)
    if depth == 1 or (known is not None and known % depth == 0):
        return x
    steps = tirx.floordiv(index(inner) + (depth - 1), index(depth))
    copy = b.workspace((rows, steps * depth), x.dtype, "whole")

    def element(at: tuple[Expr, ...]) -> None:
        copy.store(at, x[at[0], tirx.min(at[1], index(inner) - 1)])

    b.nest(copy.shape, element)
    return copy
