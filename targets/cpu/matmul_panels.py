"""MatMulNBits for many rows of floats: a tile of columns at a time becomes floats in memory.

    y[:, tile] = x W[tile]^T        W[n, k] = scale[n, k / block] (code[n, k] - middle)

A tile of columns is unpacked once, into a panel ``[K, width]`` that stays in the second-level
cache, and all rows are multiplied by it with the register tiles of float products. Words of
neighbouring columns are transposed in registers, so that a field of a word is a vector of the
panel.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...ir.graph import Graph, Node
from ...ir.registry import attribute
from ..generic.ops.movement_transpose import transposed_rows
from ..generic.registry import TemplateContext
from ..tir.builder import BufferTensor, Expr
from ..tir.extents import as_int, index
from .dot import FloatDot
from .features import CpuFeatures
from .lanes import ramp
from .matmul_dynamic import Columns, register_tile, store_vector
from .matmul_words import WORD, WordCodes, words_objection
from .microkernel import RegisterTile
from .row_tiles import RowTiles
from .tiling import tile_cost


def panels_objection(cpu: CpuFeatures, graph: Graph, node: Node) -> str | None:
    """Why panels are not for a node, or None."""
    fields = WORD // int(attribute(node, "bits"))
    if int(attribute(node, "N")) % cpu.lanes:
        return "columns do not fill vectors"
    if int(attribute(node, "block_size")) % fields:
        return "blocks are no whole words"
    return words_objection(cpu, graph, node)


class PanelProduct:
    """``x W^T + bias`` for float32 ``x`` of ``rows`` rows; a task is a tile of columns."""

    def __init__(self, ctx: TemplateContext, cpu: CpuFeatures, rows: Any) -> None:
        self.ctx, self.b, self.rows, self.lanes = ctx, ctx.b, rows, cpu.lanes
        self.columns, self.inner = int(ctx.attr("N")), int(ctx.attr("K"))
        self.block = int(ctx.attr("block_size"))
        bits = int(ctx.attr("bits"))
        self.codes = WordCodes(ctx.b, cpu, bits, first=-(1 << (bits - 1)))
        self.words = self.inner // self.codes.fields
        tile = register_tile(cpu, as_int(rows), self.columns)
        self.vectors, self.width = tile.vectors, tile.vectors * cpu.lanes
        self.row_tiles = RowTiles(ctx.b, rows, tile.rows, None)
        self.bias = ctx.buffered(5) if ctx.has(5) else None

    def emit(self) -> None:
        """Add the loops."""
        ctx, b = self.ctx, self.b
        x = b.view(ctx.buffered(0), (self.rows, self.inner))
        result = b.view(ctx.result(), (self.rows, self.columns))

        def task(at: tuple[Expr, ...]) -> None:
            panel = b.workspace((self.inner, self.width), "float32", "panel")
            with b.loop(self.vectors) as vector:
                first = b.let(at[0] * self.width + vector * self.lanes)
                with b.when(first < index(self.columns)):
                    self._unpack(panel, b.let(vector * self.lanes), first)
            self.row_tiles.each(
                index(0), lambda row, size: self._tile(x, panel, result, at[0], row, size)
            )

        rows = as_int(self.rows) or self.row_tiles.rows_of_group
        work = tile_cost(2 * self.width * self.inner * rows)
        b.nest((-(-self.columns // self.width),), task, work, sequential_last=True)

    def _unpack(self, panel: BufferTensor, place: Expr, first: Expr) -> None:
        """Columns from ``first`` on, as many as a vector has lanes, at ``place`` of the panel."""
        b, lanes, fields = self.b, self.lanes, self.codes.fields
        packed = b.view(self.ctx.buffered(1), (self.columns, self.words // lanes, 4 * lanes))
        scales = self._scales(first)
        at_place = tirx.Ramp(place, index(1), lanes)
        with b.loop(self.words // lanes) as v:
            rows = [packed.load_raw([first + n, v, ramp(4 * lanes)]) for n in range(lanes)]
            square = [b.let(tirx.reinterpret(f"float32x{lanes}", row)) for row in rows]
            for i, turned in enumerate(transposed_rows(b, square)):
                word = b.let(tirx.reinterpret(f"int32x{lanes}", turned))
                k = b.let((v * lanes + i) * fields)
                scale = b.let(scales.load_raw([tirx.floordiv(k, index(self.block)), ramp(lanes)]))
                for f in range(fields):
                    panel.store_raw([k + f, at_place], self.codes.of(word, f) * scale)

    def _scales(self, first: Expr) -> BufferTensor:
        """The scales of as many columns as a vector has lanes: ``[blocks, lanes]``."""
        b, blocks = self.b, self.inner // self.block
        given = b.view(self.ctx.buffered(2), (self.columns, blocks))
        out = b.workspace((blocks, self.lanes), "float32", "scales")
        with b.loop(blocks) as block, b.loop(self.lanes) as lane:
            out.store((block, lane), given[first + lane, block])
        return out

    def _tile(
        self, x: BufferTensor, panel: BufferTensor, result: BufferTensor, tile: Expr, row: Expr,
        size: int,
    ) -> None:  # fmt: skip
        """``size`` rows from ``row`` on, times the panel."""
        b, lanes = self.b, self.lanes
        acc = RegisterTile(b, size, self.vectors, FloatDot(lanes))
        acc.zero()
        acc.reduce((self.inner,), lambda r, k: (x, (row + r, k[0])), lambda k: (panel, (k[0],)))
        columns = Columns(self.columns, self.width, lanes)
        for v in range(self.vectors):
            for r in range(size):

                def element(lane: Expr, r: int = r, v: int = v) -> None:
                    column, value = tile * self.width + v * lanes + lane, acc.value(r, v, lane)
                    value = value if self.bias is None else value + self.bias[column]
                    result.store((row + r, column), value)

                store_vector(b, columns, tile, v, element)


__all__ = ["PanelProduct", "panels_objection"]
