"""Matrix products with packed weights: ``y[m, n] = sum_k x[m, k] * w[k, n]``.

Floats, with weights of float32 or converted from 8 bits on the way to a register; or 8-bit
integers, summed in int32.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ..generic.registry import Template, TemplateContext
from ..tir.builder import BufferTensor, Builder, as_int, index, product, unflatten
from .dot import dot_of
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
        x, depth = ctx.buffered(0), int(ctx.attr("depth"))
        self.tiles, self.steps, width = (int(d) for d in self.weight.shape)
        self.tile_width = width // depth
        self.lanes = min(cpu.lanes, self.tile_width)
        self.vectors = self.tile_width // self.lanes
        self.dot = dot_of(cpu, x, depth, self.lanes)
        self.limit = accumulator_budget(cpu, self.vectors, self.dot.parts)
        self.outer = x.shape[:-1]
        self.rows = product(self.outer)
        self.x = whole_steps(self.b, self.b.view(x, (self.rows, x.shape[-1])), depth)
        self.columns = int(ctx.attr("columns"))

    def emit(self) -> None:
        fixed = as_int(self.rows)
        cost = 2 * self.steps * self.tile_width * self.limit
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
        acc = RegisterTile(self.b, size, self.vectors, self.dot)
        acc.zero()
        acc.reduce(
            (self.steps,),
            lambda r, k: (self.x, (row + r, k[0])),
            lambda k: (self.weight, (tile, k[0])),
        )
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

        store_vector(self.ctx, self.columns, self.lanes, self.tile_width, column, element)


def whole_steps(b: Builder, x: BufferTensor, depth: int) -> BufferTensor:
    """``x`` [rows, K] with rows of whole steps; what a copy adds meets zero weights."""
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
