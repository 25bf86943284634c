"""Depthwise convolution on blocked layouts: every channel has a filter of its own.

``y[n, c, o] = sum_k x[n, c, o*stride + k*dilation - pad] * w[c, k]``, channels in vector lanes.
With an instruction for dot products of bytes, four neighbours of a row are one step: they lie next
to each other in memory, and one shuffle makes them neighbours by channel.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tvm import tirx

from ...ir.ops.blocked import blocked_conv_window
from ..generic.registry import Template, TemplateContext
from ..tir.builder import BufferTensor, as_int, index
from ..tir.numeric import cast
from .dot import ByteDot, byte_dot_intrinsic
from .features import CpuFeatures
from .image import Geometry, as_image, pad_image
from .tiling import cover

Expr = Any


def depthwise_blocked(cpu: CpuFeatures) -> Template:
    """The template of ``kiln.DepthwiseBlocked`` for one CPU."""

    def template(ctx: TemplateContext) -> None:
        _Depthwise(ctx, cpu).emit()

    return Template(template)


class _Depthwise:
    def __init__(self, ctx: TemplateContext, cpu: CpuFeatures) -> None:
        self.ctx = ctx
        self.b = ctx.b
        x, w = ctx.input_types[0], ctx.input_types[1]
        assert x is not None and w is not None
        self.geometry = Geometry.of(blocked_conv_window(ctx.node, x, w))
        self.weight = ctx.buffered(1)
        self.n, self.blocks, *spatial, block = ctx.out_shape()
        self.rank = len(spatial)
        self.height: Any = spatial[0] if self.rank == 2 else 1
        self.width = spatial[-1]
        self.block = int(block)
        self.lanes = min(cpu.lanes, self.block)
        self.sums = "float32" if x.dtype.is_float else "int32"
        self.depth = int(ctx.attr("depth"))
        self.limit = cpu.registers // 2 - 2
        if self.depth > 1:
            self.dot = ByteDot(self.lanes, byte_dot_intrinsic(cpu, self.lanes))

    def emit(self) -> None:
        g, b = self.geometry, self.b
        slack = -g.kernel[1] % self.depth
        value = int(self.ctx.attr("pad_value"))
        self.image = pad_image(b, as_image(b, self.ctx.buffered(0)), g, value, slack)
        n, blocks, height, width, block = self.image.tensor.shape
        self.flat = b.view(self.image.tensor, (n, blocks, height, width * block))
        self.bias = (
            b.view(self.ctx.buffered(2), (self.blocks, self.block)) if self.ctx.has(2) else None
        )
        cost = 2 * g.kernel[0] * g.kernel[1] * 64 * self.block
        b.nest((self.n, self.blocks, self.height), self._row, cost=cost, sequential_last=True)

    def _row(self, at: tuple[Expr, ...]) -> None:
        b, limit = self.b, self.limit
        fixed = as_int(self.width)
        for part in range(self.block // self.lanes):
            if fixed is None:
                full = tirx.floordiv(index(self.width), index(limit))
                with b.loop(full) as c:
                    self._tile(at, b.opaque(c * limit), limit, part)
                with b.loop(index(self.width) - full * limit) as c:
                    self._tile(at, b.opaque(full * limit + c), 1, part)
                continue
            start: Any = index(0)
            for size, count in cover(fixed, limit):
                with b.loop(count) as c:
                    self._tile(at, start + c * size, size, part)
                start = start + size * count

    def _tile(self, at: tuple[Expr, ...], column: Expr, size: int, part: int) -> None:
        """``size`` neighbouring positions of one vector of channels."""
        b = self.b
        acc = [b.local((self.lanes,), self.sums, "acc") for _ in range(size)]
        ramp = tirx.Ramp(index(0), index(1), self.lanes)
        for a in acc:
            a.store_raw([ramp], self._start(at[1], part))
        for kh, kw in self._steps():
            w = b.let(self._weights(at[1], kh, kw, part), "w")
            for r in range(size):
                old = acc[r].load_raw([ramp])
                acc[r].store_raw([ramp], self._add(old, at, column + r, kh, kw, part, w))
        for r in range(size):
            position = (at[2], column + r) if self.rank == 2 else (column + r,)
            with b.lanes(self.lanes) as lane:
                place = (*at[:2], *position, part * self.lanes + lane)
                self.ctx.sink(place, acc[r].load_raw([lane]))

    def _start(self, block: Expr, part: int) -> Expr:
        if self.bias is None:
            return tirx.Broadcast(tirx.const(0, self.sums), self.lanes)
        return self.bias.load_raw([block, self._lanes_of(part, 1)])

    def _steps(self) -> Iterator[tuple[int, int]]:
        for kh in range(self.geometry.kernel[0]):
            for kw in range(-(-self.geometry.kernel[1] // self.depth)):
                yield kh, kw

    def _lanes_of(self, part: int, depth: int) -> Expr:
        return tirx.Ramp(index(part * self.lanes * depth), index(1), self.lanes * depth)

    def _weights(self, block: Expr, kh: int, kw: int, part: int) -> Expr:
        kernel = (index(kh), index(kw)) if self.rank == 2 else (index(kw),)
        w = self.weight.load_raw([block, *kernel, self._lanes_of(part, self.depth)])
        return w if self.depth > 1 else cast(w, f"{self.sums}x{self.lanes}")

    def _add(
        self, acc: Expr, at: tuple[Expr, ...], column: Expr, kh: int, kw: int, part: int, w: Expr
    ) -> Expr:  # fmt: skip
        g = self.geometry
        i, c, row = at
        h = row * g.strides[0] + kh * g.dilations[0]
        v = column * g.strides[1] + kw * self.depth * g.dilations[1]
        if self.depth == 1:
            x = self.image.tensor.load_raw([i, c, h, v, self._lanes_of(part, 1)])
            return acc + cast(x, f"{self.sums}x{self.lanes}") * w
        return self.dot.add(acc, (self._four(self.flat, (i, c, h), v),), (w,))

    def _four(self, flat: BufferTensor, at: tuple[Expr, ...], column: Expr) -> Expr:
        """Four neighbouring positions of a block, those of one channel next to each other."""
        lanes = self.lanes
        line = flat.load_raw([*at, tirx.Ramp(column * lanes, index(1), 4 * lanes)])
        order = [index(t * lanes + c) for c in range(lanes) for t in range(4)]
        return tirx.reinterpret(f"int8x{4 * lanes}", tirx.Shuffle([line], order))
