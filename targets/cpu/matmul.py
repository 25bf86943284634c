"""Matrix products with packed weights: ``y[m, n] = sum_k x[m, k] * w[k, n]``."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ..generic.registry import Template, TemplateContext
from ..tir.builder import as_int, index, product, unflatten
from .features import CpuFeatures
from .matmul_dynamic import store_vector
from .microkernel import RegisterTile
from .tiling import accumulator_budget, cover

Expr = Any


def matmul_packed(cpu: CpuFeatures) -> Template:
    """The template of ``kiln.MatMulPacked`` for one CPU."""

    def template(ctx: TemplateContext) -> None:
        _Packed(ctx, cpu).emit()

    return Template(template)


class _Packed:
    def __init__(self, ctx: TemplateContext, cpu: CpuFeatures) -> None:
        self.ctx = ctx
        self.b = ctx.b
        self.weight = ctx.buffered(1)
        self.tiles, self.depth, self.tile_width = self.weight.shape
        x = ctx.buffered(0)
        self.outer = x.shape[:-1]
        self.rows = product(self.outer)
        self.x = self.b.view(x, (self.rows, x.shape[-1]))
        self.columns = int(ctx.attr("columns"))
        self.lanes = min(cpu.lanes, int(self.tile_width))
        self.vectors = int(self.tile_width) // self.lanes
        self.limit = accumulator_budget(cpu, self.vectors)

    def emit(self) -> None:
        fixed = as_int(self.rows)
        cost = 2 * int(self.depth) * int(self.tile_width) * self.limit
        if fixed is None:
            full = tirx.floordiv(index(self.rows), index(self.limit))
            self._tiles(index(0), full, self.limit, cost)
            rest = index(self.rows) - full * self.limit
            self._tiles(full * self.limit, rest, 1, cost // self.limit)
            return
        start = 0
        for size, count in cover(fixed, self.limit):
            self._tiles(index(start), count, size, cost)
            start += size * count

    def _tiles(self, start: Expr, count: Any, size: int, cost: int) -> None:
        def task(at: tuple[Expr, ...]) -> None:
            tile, c = at
            self._tile(tile, start + c * size, size)

        self.b.nest((self.tiles, count), task, cost, sequential_last=True)

    def _tile(self, tile: Expr, row: Expr, size: int) -> None:
        acc = RegisterTile(self.b, size, self.vectors, self.lanes, self.weight.compute_dtype)
        acc.zero()

        def vector(v: int, k: tuple[Expr, ...]) -> Expr:
            lanes = tirx.Ramp(index(v * self.lanes), index(1), self.lanes)
            return self.weight.load_raw([tile, k[0], lanes])

        acc.reduce((self.depth,), lambda r, k: self.x[row + r, k[0]], vector)
        for v in range(self.vectors):
            column = tile * self.tile_width + v * self.lanes
            for r in range(size):
                self._store(acc, r, v, row + r, column)

    def _store(self, acc: RegisterTile, r: int, v: int, row: Expr, column: Expr) -> None:
        """Hand a vector of results over."""
        place = unflatten(row, self.outer) if self.outer else ()

        def element(lane: Expr) -> None:
            value = acc.value(r, v, lane)
            if self.ctx.has(2):
                value = value + self.ctx.input(2)[(column + lane,)]
            self.ctx.sink((*place, column + lane), value)

        store_vector(self.ctx, self.columns, self.lanes, int(self.tile_width), column, element)
