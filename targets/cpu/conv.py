"""Direct convolution on blocked layouts.

``y[n, m, o, t] = sum_{c, k} x[n, c, o*stride + k*dilation - pad] * w[m, c, k, t]``: a tile of
neighbouring output positions times a few vectors of output channels stays in registers over the
whole sum. A padded image is copied once, so that the inner loops have no borders.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...ir.ops.blocked import blocked_conv_window
from ...ir.windows import ConvShape
from ..generic.registry import Template, TemplateContext
from ..tir.builder import as_int, index
from .dot import dot_of
from .features import CpuFeatures
from .image import Geometry, as_image, pad_image
from .microkernel import Place, RegisterTile, Weights
from .tiling import accumulator_budget, cover
from .winograd import Winograd, winograd_fits, winograd_tiles

Expr = Any


def conv_blocked(cpu: CpuFeatures) -> Template:
    """The template of ``kiln.ConvBlocked`` for one CPU."""

    def template(ctx: TemplateContext) -> None:
        x, w = ctx.input_types[0], ctx.input_types[1]
        assert x is not None and w is not None
        geometry = Geometry.of(blocked_conv_window(ctx.node, x, w))
        if _is_winograd(ctx, cpu, geometry):
            Winograd(ctx, cpu, as_image(ctx.b, ctx.buffered(0)), geometry, ctx.buffered(1)).emit()
        else:
            _Dense(ctx, cpu, geometry).emit()

    return Template(template)


def _is_winograd(ctx: TemplateContext, cpu: CpuFeatures, g: Geometry) -> bool:
    """What the attribute says, or else whether it pays."""
    algorithm, shape = str(ctx.attr("algorithm")), _shape_of(ctx, g)
    blocked = as_int(ctx.input(0).shape[-1]) == cpu.lanes
    if algorithm == "winograd" and not (blocked and winograd_fits(shape, cpu.lanes)):
        raise ctx.error("this convolution has no Winograd form")
    if algorithm:
        return algorithm == "winograd"
    return blocked and winograd_tiles(shape, cpu.lanes) is not None


def _shape_of(ctx: TemplateContext, g: Geometry) -> ConvShape:
    group = int(ctx.attr("group"))
    _, _, *image, _ = ctx.out_shape()
    return ConvShape(
        int(ctx.attr("in_channels")) // group, int(ctx.attr("out_channels")) // group, group,
        g.kernel, g.strides, g.dilations, tuple(as_int(d) for d in image),
        ctx.input(0).dtype != "float32",
    )  # fmt: skip


class _Dense:
    """One dense (possibly grouped) convolution."""

    def __init__(self, ctx: TemplateContext, cpu: CpuFeatures, geometry: Geometry) -> None:
        self.ctx = ctx
        self.b = ctx.b
        self.cpu = cpu
        self.geometry = geometry
        self.weight = ctx.buffered(1)
        self.groups, self.tiles, self.in_blocks = (int(d) for d in self.weight.shape[:3])
        depth = int(ctx.attr("depth"))
        self.steps, width = (int(d) for d in self.weight.shape[-2:])
        self.tile_width = width // depth
        self.block = int(ctx.attr("block"))
        self.lanes = min(cpu.lanes, self.block)
        self.vectors = self.tile_width // self.lanes
        self.dot = dot_of(cpu, ctx.buffered(0), depth, self.lanes)

    def emit(self) -> None:
        image = as_image(self.b, self.ctx.buffered(0))
        n, _, *spatial, _ = self.ctx.out_shape()
        height, width = spatial if len(spatial) == 2 else (1, spatial[0])
        self.rank = len(spatial)
        # A single column is tiled along its height: turned, it is a single row.
        self.tall = as_int(image.width) == 1 and as_int(image.height) != 1
        if self.tall and self.geometry.vertical:
            image = image.turned(self.b)
            self.geometry = self.geometry.turned()
            height, width = width, height
        else:
            self.tall = False
        image = pad_image(self.b, image, self.geometry, int(self.ctx.attr("pad_value")))
        self.image = image
        limit = accumulator_budget(self.cpu, self.vectors, self.dot.parts)
        fixed = as_int(width)
        cost = 2 * self.in_blocks * self.steps * self.tile_width * 64
        tasks = (n, self.groups, self.tiles, height)
        if fixed is None:
            self.b.nest(tasks, lambda at: self._dynamic(at, width, limit), cost, True)
        elif as_int(height) == 1:
            self._long_row(n, cover(fixed, limit), cost)
        else:
            chunks = cover(fixed, limit)
            self.b.nest(tasks, lambda at: self._row(at, chunks), cost, True)

    def _row(self, at: tuple[Expr, ...], chunks: list[tuple[int, int]]) -> None:
        batch, group, tile, row = at
        start: Any = index(0)
        for size, count in chunks:
            with self.b.loop(count) as c:
                self._tile(batch, group, tile, row, start + c * size, size)
            start = start + size * count

    def _long_row(self, n: Any, chunks: list[tuple[int, int]], cost: int) -> None:
        """Images of one row: its tiles are tasks of their own."""
        start = 0
        for size, count in chunks:
            first = start

            def task(at: tuple[Expr, ...], size: int = size, first: int = first) -> None:
                batch, group, tile, c = at
                self._tile(batch, group, tile, index(0), index(first) + c * size, size)

            self.b.nest((n, self.groups, self.tiles, count), task, cost, sequential_last=True)
            start += size * count

    def _dynamic(self, at: tuple[Expr, ...], columns: Any, limit: int) -> None:
        """A row whose length is only known at run time: full tiles, then single positions."""
        batch, group, tile, row = at
        full = tirx.floordiv(index(columns), index(limit))
        with self.b.loop(full) as c:
            self._tile(batch, group, tile, row, self.b.opaque(c * limit), limit)
        with self.b.loop(index(columns) - full * limit) as c:
            self._tile(batch, group, tile, row, self.b.opaque(full * limit + c), 1)

    def _tile(
        self, batch: Expr, group: Expr, tile: Expr, row: Expr, column: Expr, size: int
    ) -> None:
        """``size`` output positions of one row, all channels of one register tile."""
        b, g = self.b, self.geometry
        acc = RegisterTile(b, size, self.vectors, self.dot)
        self._start(acc, group, tile)
        (stride_h, stride_w), (dilation_h, dilation_w) = g.strides, g.dilations
        channel_block = group * self.in_blocks

        def operand(r: int, k: tuple[Expr, ...], c: Expr) -> Place:
            _, kh, kw, i = k
            h = row * stride_h + kh * dilation_h
            w = (column + r) * stride_w + kw * dilation_w
            return self.image.tensor, (batch, channel_block + c, h, w, i)

        def weights(k: tuple[Expr, ...], c: Expr) -> Weights:
            _, kh, kw, i = k
            kernel = ((kw, kh) if self.tall else (kh, kw)) if self.rank == 2 else (kw,)
            return self.weight, (group, tile, c, *kernel, i)

        def add(first: int, blocks: int, steps: int) -> None:
            acc.reduce(
                (blocks, *g.kernel, steps),
                lambda r, k: operand(r, k, k[0] + first),
                lambda k: weights(k, k[0] + first),
            )

        for part in self._sums():
            add(*part)
        self._finish(acc, batch, group, tile, row, column, size)

    def _sums(self) -> list[tuple[int, int, int]]:
        """Blocks of input channels: (first, count, steps); the last may hold fewer channels."""
        channels = int(self.ctx.attr("in_channels")) // self.groups
        depth = int(self.ctx.attr("depth"))
        whole, rest = divmod(-(-channels // depth), self.steps)
        parts = [(0, whole, self.steps), (whole, 1, rest)]
        return [part for part in parts if part[1] * part[2] > 0]

    def _start(self, acc: RegisterTile, group: Expr, tile: Expr) -> None:
        if not self.ctx.has(2):
            acc.zero()
            return
        bias = self.ctx.buffered(2)
        size = as_int(bias.shape[0])
        assert size is not None
        flat = self.b.view(bias, (size * self.block,))
        base = (group * self.tiles + tile) * self.tile_width

        def value(_r: int, v: int) -> Expr:
            return flat.load_raw([tirx.Ramp(base + v * self.lanes, index(1), self.lanes)])

        acc.fill(value)

    def _finish(
        self, acc: RegisterTile, batch: Expr, group: Expr, tile: Expr, row: Expr, column: Expr,
        size: int,
    ) -> None:  # fmt: skip
        b = self.b
        per_tile = self.tile_width // self.block
        blocks = as_int(self.ctx.out_shape()[1])
        assert blocks is not None
        for v in range(self.vectors):
            offset = v * self.lanes
            block = (group * self.tiles + tile) * per_tile + offset // self.block
            whole = self.groups * self.tiles * per_tile == blocks
            with b.when(None if whole else block < blocks):
                for r in range(size):
                    position = (row, column + r) if self.rank == 2 else (column + r,)
                    position = position[::-1] if self.tall else position
                    with b.lanes(self.lanes) as lane:
                        self.ctx.sink(
                            (batch, block, *position, offset % self.block + lane),
                            acc.value(r, v, lane),
                        )
