"""Direct convolution on blocked layouts.

``y[n, m, o, t] = sum_{c, k} x[n, c, o*stride + k*dilation - pad] * w[m, c, k, t]``: a tile of
neighbouring output positions times a few vectors of output channels stays in registers over the
whole sum. A padded image is copied once, so that the inner loops have no borders.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...ir.dims import Dim
from ...ir.ops.blocked import blocked_conv_window
from ...ir.windows import Window
from ..generic.registry import Template, TemplateContext
from ..tir.builder import BufferTensor, Builder, as_int, index
from .features import CpuFeatures
from .microkernel import RegisterTile
from .tiling import accumulator_budget, cover

Expr = Any


@dataclass
class _Image:
    """An input image of two spatial dims (H is 1 for 1-D), borders included."""

    tensor: BufferTensor
    height: Any
    width: Any
    block: int

    def turned(self, b: Builder) -> _Image:
        """The image with height and width exchanged, where one of them is 1."""
        n, blocks = self.tensor.shape[:2]
        view = b.view(self.tensor, (n, blocks, self.width, self.height, self.block))
        return _Image(view, self.width, self.height, self.block)


@dataclass(frozen=True)
class _Geometry:
    """Window sizes as (height, width) pairs."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    begin: tuple[Dim, Dim]
    end: tuple[Dim, Dim]

    @classmethod
    def of(cls, w: Window) -> _Geometry:
        def pair(values: tuple[Any, ...], filler: int) -> tuple[Any, Any]:
            return (filler, values[0]) if len(values) == 1 else (values[0], values[1])

        return cls(
            pair(w.kernel, 1), pair(w.strides, 1), pair(w.dilations, 1), pair(w.begin, 0),
            pair(w.end, 0),
        )  # fmt: skip

    @property
    def padded(self) -> bool:
        return any(p != 0 for p in (*self.begin, *self.end))

    @property
    def vertical(self) -> bool:
        """Does the window leave the second dim alone?"""
        return (self.kernel[1], self.strides[1], self.begin[1], self.end[1]) == (1, 1, 0, 0)

    def turned(self) -> _Geometry:
        """The geometry with height and width exchanged."""
        return _Geometry(
            self.kernel[::-1], self.strides[::-1], self.dilations[::-1], self.begin[::-1],
            self.end[::-1],
        )  # fmt: skip


def conv_blocked(cpu: CpuFeatures) -> Template:
    """The template of ``kiln.ConvBlocked`` for one CPU."""

    def template(ctx: TemplateContext) -> None:
        _Dense(ctx, cpu).emit()

    return Template(template)


def as_image(b: Builder, x: BufferTensor) -> _Image:
    """View ``[N, Cb, *S, c]`` with two spatial dims."""
    n, blocks, *spatial, block = x.shape
    height, width = spatial if len(spatial) == 2 else (1, spatial[0])
    view = x if len(spatial) == 2 else b.view(x, (n, blocks, 1, width, block))
    return _Image(view, height, width, int(block))


def pad_image(b: Builder, image: _Image, g: _Geometry) -> _Image:
    """The image with its zero border in workspace; itself where there is none."""
    if not g.padded:
        return image
    top, left = b.dim(g.begin[0]), b.dim(g.begin[1])
    height = image.height + top + b.dim(g.end[0])
    width = image.width + left + b.dim(g.end[1])
    n, blocks = image.tensor.shape[:2]
    out = b.workspace((n, blocks, height, width, image.block), image.tensor.dtype, "padded")
    zero = tirx.const(0, image.tensor.compute_dtype)
    lanes = image.block

    def row(at: tuple[Expr, ...]) -> None:
        i, c, h = at
        inside = tirx.all(h >= index(top), h < index(top) + index(image.height))
        with b.when(inside):
            _fill(b, out, (i, c, h), 0, left, lanes, zero)
            with b.loop(image.width) as w:
                _lanes(b, lanes, lambda v: out.store(
                    (i, c, h, w + left, v), image.tensor[i, c, h - top, w, v]))  # fmt: skip
            _fill(b, out, (i, c, h), image.width + left, b.dim(g.end[1]), lanes, zero)
        with b.when(tirx.Not(inside)):
            _fill(b, out, (i, c, h), 0, width, lanes, zero)

    b.nest((n, blocks, height), row, cost=64 * lanes, sequential_last=True)
    return _Image(out, height, width, image.block)


def _fill(
    b: Builder, out: BufferTensor, at: tuple[Expr, ...], start: Any, count: Any, lanes: int,
    value: Expr,
) -> None:  # fmt: skip
    with b.loop(count) as w:
        _lanes(b, lanes, lambda v: out.store((*at, w + start, v), value))


def _lanes(b: Builder, lanes: int, body: Callable[[Expr], None]) -> None:
    with b.loop(lanes, "vectorized" if lanes > 1 else "serial") as v:
        body(v)


class _Dense:
    """One dense (possibly grouped) convolution."""

    def __init__(self, ctx: TemplateContext, cpu: CpuFeatures) -> None:
        self.ctx = ctx
        self.b = ctx.b
        self.cpu = cpu
        x, w = ctx.input_types[0], ctx.input_types[1]
        assert x is not None and w is not None
        self.geometry = _Geometry.of(blocked_conv_window(ctx.node, x, w))
        self.weight = ctx.buffered(1)
        self.groups, self.tiles, self.in_blocks = (int(d) for d in self.weight.shape[:3])
        self.in_block, self.tile_width = (int(d) for d in self.weight.shape[-2:])
        self.block = int(ctx.attr("block"))
        self.lanes = min(cpu.lanes, self.block)
        self.vectors = self.tile_width // self.lanes

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
        image = pad_image(self.b, image, self.geometry)
        self.image = image
        limit = accumulator_budget(self.cpu, self.vectors)
        fixed = as_int(width)
        cost = 2 * self.in_blocks * self.in_block * self.tile_width * 64
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
        acc = RegisterTile(b, size, self.vectors, self.lanes, self.weight.compute_dtype)
        self._start(acc, group, tile)
        (stride_h, stride_w), (dilation_h, dilation_w) = g.strides, g.dilations
        x, w = self.image.tensor, self.weight
        channel_block = group * self.in_blocks

        def scalar(r: int, k: tuple[Expr, ...]) -> Expr:
            c, kh, kw, i = k
            h = row * stride_h + kh * dilation_h
            return x[batch, channel_block + c, h, (column + r) * stride_w + kw * dilation_w, i]

        def vector(v: int, k: tuple[Expr, ...]) -> Expr:
            c, kh, kw, i = k
            lanes = tirx.Ramp(index(v * self.lanes), index(1), self.lanes)
            kernel = ((kw, kh) if self.tall else (kh, kw)) if self.rank == 2 else (kw,)
            return w.load_raw([group, tile, c, *kernel, i, lanes])

        acc.reduce((self.in_blocks, *g.kernel, self.in_block), scalar, vector)
        self._finish(acc, batch, group, tile, row, column, size)

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
            with b.when(block < blocks) if not whole else _always():
                for r in range(size):
                    position = (row, column + r) if self.rank == 2 else (column + r,)
                    position = position[::-1] if self.tall else position
                    with b.lanes(self.lanes) as lane:
                        self.ctx.sink(
                            (batch, block, *position, offset % self.block + lane),
                            acc.value(r, v, lane),
                        )


class _always:  # noqa: N801
    """A context manager that does nothing: the code inside always runs."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def depthwise_blocked(cpu: CpuFeatures) -> Template:
    """The template of ``kiln.DepthwiseBlocked`` for one CPU."""

    def template(ctx: TemplateContext) -> None:
        _depthwise(ctx, cpu)

    return Template(template)


def _depthwise(ctx: TemplateContext, cpu: CpuFeatures) -> None:
    b = ctx.b
    x_type, w_type = ctx.input_types[0], ctx.input_types[1]
    assert x_type is not None and w_type is not None
    g = _Geometry.of(blocked_conv_window(ctx.node, x_type, w_type))
    image = pad_image(b, as_image(b, ctx.buffered(0)), g)
    weight = ctx.buffered(1)
    n, blocks, *spatial, block = ctx.out_shape()
    rank = len(spatial)
    height, width = spatial if rank == 2 else (1, spatial[0])
    lanes = min(cpu.lanes, int(block))
    bias = b.view(ctx.buffered(2), (blocks, block)) if ctx.has(2) else None
    limit = cpu.registers // 2 - 2

    def tile(at: tuple[Expr, ...], column: Expr, size: int, part: int) -> None:
        i, c, row = at
        acc = [b.local((lanes,), weight.compute_dtype, "acc") for _ in range(size)]
        ramp = tirx.Ramp(index(0), index(1), lanes)
        wide = tirx.Ramp(index(part * lanes), index(1), lanes)
        for a in acc:
            first = bias.load_raw([c, wide]) if bias is not None else _zeros(a, lanes)
            a.store_raw([ramp], first)
        for kh in range(g.kernel[0]):
            for kw in range(g.kernel[1]):
                kernel = (index(kh), index(kw)) if rank == 2 else (index(kw),)
                w = b.let(weight.load_raw([c, *kernel, wide]), "w")
                for r in range(size):
                    h = row * g.strides[0] + kh * g.dilations[0]
                    v = (column + r) * g.strides[1] + kw * g.dilations[1]
                    xv = image.tensor.load_raw([i, c, h, v, wide])
                    acc[r].store_raw([ramp], acc[r].load_raw([ramp]) + xv * w)
        for r in range(size):
            position = (row, column + r) if rank == 2 else (column + r,)
            with b.lanes(lanes) as lane:
                ctx.sink((i, c, *position, part * lanes + lane), acc[r].load_raw([lane]))

    def row(at: tuple[Expr, ...]) -> None:
        for part in range(int(block) // lanes):
            fixed = as_int(width)
            if fixed is None:
                full = tirx.floordiv(index(width), index(limit))
                with b.loop(full) as c:
                    tile(at, b.opaque(c * limit), limit, part)
                with b.loop(index(width) - full * limit) as c:
                    tile(at, b.opaque(full * limit + c), 1, part)
                continue
            start: Any = index(0)
            for size, count in cover(fixed, limit):
                with b.loop(count) as c:
                    tile(at, start + c * size, size, part)
                start = start + size * count

    cost = 2 * g.kernel[0] * g.kernel[1] * 64 * int(block)
    b.nest((n, blocks, height), row, cost=cost, sequential_last=True)


def _zeros(a: BufferTensor, lanes: int) -> Expr:
    return tirx.Broadcast(tirx.const(0, a.compute_dtype), lanes)
