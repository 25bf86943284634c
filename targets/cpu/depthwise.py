"""Depthwise convolution on blocked layouts: every channel has a filter of its own.

``y[n, c, o] = sum_k x[n, c, o*stride + k*dilation - pad] * w[c, k]``, with channels in vector
lanes.

With an instruction for dot products of bytes, one step takes four neighbouring columns of a row.
Memory has the channels of each column together, ``[column, channel]``, but the instruction wants
the four columns of each channel together, so a shuffle transposes them in registers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

from tvm import tirx

from ...ir.graph import Graph, Node
from ...ir.ops.blocked import blocked_conv_window
from ...ir.registry import attribute
from ..generic.registry import Details, Template, TemplateContext
from ..tir.builder import BufferTensor
from ..tir.extents import as_int, index
from ..tir.numeric import cast
from .dot import ByteDot, byte_dot_intrinsic
from .features import CpuFeatures
from .image import Geometry, as_image, element, pad_image
from .narrow import byte_packer, store_vectors
from .row_tiles import RowTiles
from .tiling import Tile, cover, tile_cost

Expr = Any
At = tuple[Expr, ...]

_MOST = 14
"""Outputs of a tile, at most."""
_OPEN = 8
"""The same where the width is not known: it hides the latency of multiply-adds, and a remainder
takes tiles of three sizes only (4, 2 and 1)."""
_QUAD = 4
"""Outputs of a tile of dot products of bytes: as many vectors as are narrowed together. The columns
of larger tiles would not stay in registers."""


def depthwise_blocked(cpu: CpuFeatures) -> Template:
    """The template of ``kiln.DepthwiseBlocked`` for one CPU."""

    def template(ctx: TemplateContext) -> None:
        kind = _Bytes if int(ctx.attr("depth")) > 1 else _Lanewise
        kind(ctx, cpu).emit()

    def details(graph: Graph, node: Node) -> Details:
        lanes = min(cpu.lanes, int(attribute(node, "block")))
        if int(attribute(node, "depth")) > 1:
            return Details(Tile(_QUAD, 1).text(lanes))
        *_, width, _block = node.out().shape
        taps = int(attribute(node, "kernel_shape")[-1])
        return Details(_lanewise_tile(cpu, as_int(width), taps).text(lanes))

    return Template(template, details, level=2)


def _lanewise_tile(cpu: CpuFeatures, width: int | None, taps: int) -> Tile:
    """The tile for single elements: the outputs of a row that the registers have room for, beside
    ``taps`` weights, an input and a product. ``width`` of the row may be unknown (None).
    """
    most = _OPEN if width is None else _MOST
    return Tile(max(1, min(most, cpu.registers - taps - 2)), 1)


_BORDER = 3
"""The operand of ``kiln.DepthwiseBlocked`` that is the element in the border."""

_LARGEST_PRODUCT = 255 * 128
"""Of two bytes, one of them with a sign."""


class _Depthwise:
    """What the kernels for single elements and for dot products of bytes share."""

    def __init__(self, ctx: TemplateContext, cpu: CpuFeatures) -> None:
        self.ctx = ctx
        self.b = ctx.b
        self.cpu = cpu
        x, w = ctx.input_types[0], ctx.input_types[1]
        assert x is not None and w is not None
        self.geometry = Geometry.of(blocked_conv_window(ctx.node, x, w))
        self.weight = ctx.buffered(1)
        self.n, self.blocks, *spatial, block = ctx.out_shape()
        self.rank = len(spatial)
        *self.lines, self.width = spatial if self.rank > 1 else (1, *spatial)
        self.block = int(block)
        self.lanes = min(cpu.lanes, self.block)
        self.sums = "float32" if x.dtype.is_float else "int32"
        self.image = as_image(self.b, ctx.buffered(0))
        self.borders = False
        """Is the image read as it is, without a copy that has a border around it?"""
        self.bias = None
        if ctx.has(2):
            self.bias = self.b.view(ctx.buffered(2), (self.blocks, self.block))

    def nest(self, row: Callable[[At], None]) -> None:
        """Run ``row`` for every (image, block, row), or (image, block, plane, row) of a volume."""
        taps = prod(self.geometry.kernel)
        cost = tile_cost(2 * taps * (as_int(self.width) or 64) * self.block)
        self.b.nest((self.n, self.blocks, *self.lines), row, cost=cost, sequential_last=True)

    def accumulators(self, block: Expr, part: int, count: int) -> list[BufferTensor]:
        """``count`` vectors of sums, which start with the bias if that is of their type."""
        acc = [self.b.local((self.lanes,), self.sums, "acc") for _ in range(count)]
        start = tirx.Broadcast(tirx.const(0, self.sums), self.lanes)
        if self.bias is not None and self.bias.dtype == self.sums:
            start = self.b.let(self.bias.load_raw([block, self.lanes_of(part, 1)]), "bias")
        for a in acc:
            a.store_raw([self.ramp], start)
        return acc

    @property
    def ramp(self) -> Expr:
        return tirx.Ramp(index(0), index(1), self.lanes)

    def lanes_of(self, part: int, depth: int) -> Expr:
        """The elements of part of a block, a vector of channels with ``depth`` for each."""
        return tirx.Ramp(index(part * self.lanes * depth), index(1), self.lanes * depth)

    def weights(self, block: Expr, line: At, kw: int, part: int, depth: int) -> Expr:
        kernel = (*line, index(kw))[-self.rank :]
        return self.weight.load_values([block, *kernel, self.lanes_of(part, depth)])

    def kernel_lines(self, at: At, body: Callable[[At, At], None]) -> None:
        """Run ``body(line, source)`` for every row of the window.

        ``line`` is the window's row, and ``source`` the row of the padded image that it is
        multiplied with, for the output row ``at``.
        """
        g = self.geometry
        with self.b.grid(*g.kernel[:-1]) as line:
            body(line, self._source(at, line))

    def _source(self, at: At, line: At) -> At:
        """The row of the padded image for row ``line`` of the window of output row ``at``."""
        g = self.geometry
        steps = zip(at[2:], g.strides, line, g.dilations, strict=False)
        return tuple(o * stride + k * dilation for o, stride, k, dilation in steps)

    def _unshifted(self, source: At) -> At:
        """A row of the padded image as one of the image that is read."""
        if not self.borders:
            return source
        begin = self.geometry.begin
        return tuple(i - self.b.dim(p) for i, p in zip(source, begin, strict=False))

    def _tests(self, source: At) -> list[Expr]:
        """Tests whether a row of the padded image is inside of the image that is read."""
        if not self.borders:
            return []
        g, extents, place = self.geometry, self.image.extents, self._unshifted(source)
        crossed = [i for i in range(len(place)) if (g.begin[i], g.end[i]) != (0, 0)]
        return [t for i in crossed for t in (place[i] >= 0, place[i] < index(extents[i]))]

    @property
    def _left(self) -> int:
        """Columns of the padded image before those of the image that is read."""
        return int(self.geometry.begin[-1]) if self.borders else 0

    def old(self, acc: BufferTensor) -> Expr:
        """The sums so far."""
        return acc.load_raw([self.ramp])

    def store(self, acc: BufferTensor, value: Expr) -> None:
        acc.store_raw([self.ramp], value)

    def finish(self, acc: Sequence[BufferTensor], at: At, column: Expr, part: int) -> None:
        """Give the results of neighbouring positions to the epilogue, which stores them."""
        first = part * self.lanes
        positions = [(*at[2:], column + r)[-self.rank :] for r in range(len(acc))]
        places = [(*at[:2], *position, index(first)) for position in positions]

        def value(r: int, lane: Expr) -> Expr:
            return self._total(acc[r], at[1], first + lane, lane)

        pack = byte_packer(self.cpu) if self.lanes == self.block else None
        store_vectors(self.ctx, places, value, self.lanes, pack)

    def _total(self, acc: BufferTensor, block: Expr, channel: Expr, lane: Expr) -> Expr:
        """A sum as an element of the result."""
        value = acc.load_raw([lane])
        if self.sums == self.ctx.out_dtype():
            return value
        value = cast(value, self.ctx.out_dtype())
        return value if self.bias is None else value + self.bias[(block, channel)]


class _Lanewise(_Depthwise):
    """Products of single elements; an input is loaded once for all outputs that use it.

    Bytes are converted to float32, which is exact while sums stay below 2**24: SIMD registers
    multiply and add floats in one instruction, 32-bit integers in three or more.
    """

    def emit(self) -> None:
        if prod(self.geometry.kernel) * _LARGEST_PRODUCT < 2**24:
            self.sums = "float32"
        self.limit = _lanewise_tile(self.cpu, as_int(self.width), self.geometry.kernel[-1]).rows
        # A border of zeros adds nothing, so windows are cut off at it, without a padded copy. If
        # the output's width is unknown, the kernel decides at run time which columns are cut off;
        # else it is decided here, which takes a known width of the image as well.
        decidable = as_int(self.width) is None or as_int(self.image.width) is not None
        self.borders = not self.ctx.has(_BORDER) and decidable
        if not self.borders:
            self.image = pad_image(self.b, self.image, self.geometry, element(self.ctx, _BORDER))
        self.nest(self._row)

    def _row(self, at: At) -> None:
        for part in range(self.block // self.lanes):
            if as_int(self.width) is None:
                self._open_row(at, part)
            else:
                self._closed_row(at, part)

    def _open_row(self, at: At, part: int) -> None:
        """A row of unknown width.

        Full tiles test whether their windows stay inside of the image, and have code for both
        cases; the smaller tiles of the remainder test each column.
        """
        b = self.b

        def tile(start: Expr, size: int) -> None:
            column = b.opaque(start)
            if not self.borders or size < self.limit:
                self._tile(at, column, size, part)
                return
            first, last = self._columns(column, size)
            inside = b.let(tirx.all(first >= 0, last < index(self.image.width)), "inside")
            for there in (True, False):
                with b.when(inside if there else tirx.Not(inside)):
                    self._tile(at, column, size, part, inside=there)

        RowTiles(b, self.width, self.limit, None).each(index(0), tile)

    def _closed_row(self, at: At, part: int) -> None:
        """A row of known width: tiles inside of the image share a loop, others are unrolled."""
        start = 0
        for size, count in cover(int(self.width), self.limit):
            inner = [i for i in range(count) if self._is_inside(start + i * size, size)]
            for i in range(count):
                if i not in inner:
                    self._tile(at, start + i * size, size, part)
                elif i == inner[0]:
                    with self.b.loop(len(inner)) as c:
                        self._tile(at, start + (c + i) * size, size, part, inside=True)
            start += size * count

    def _is_inside(self, column: int, size: int) -> bool:
        """Do the windows of these outputs stay between the left and the right border?"""
        first, last = self._columns(column, size)
        return first >= 0 and last < int(self.image.width)

    def _columns(self, column: Any, size: int) -> tuple[Any, Any]:
        """The first and the last column of the image that the windows of these outputs cover."""
        g = self.geometry
        first = column * g.strides[-1] - self._left
        return first, first + (size - 1) * g.strides[-1] + (g.kernel[-1] - 1) * g.dilations[-1]

    def _tile(self, at: At, column: Any, size: int, part: int, inside: bool = False) -> None:
        """``size`` neighbouring outputs of one vector of channels, from ``column`` on.

        ``inside``: their windows are known to be inside of the image, left and right.
        """
        acc = self.accumulators(at[1], part, size)

        def line(taps: At, source: At) -> None:
            tests = self._tests(source)
            with self.b.when(tirx.all(*tests) if tests else None):
                place = self._unshifted(source)
                self._kernel_row(acc, (*at[:2], *place), column, taps, part, inside)

        self.kernel_lines(at, line)
        self.finish(acc, at, column, part)

    def _kernel_row(
        self, acc: Sequence[BufferTensor], at: At, column: Any, line: At, part: int, inside: bool
    ) -> None:
        """Add the products of row ``line`` of the window with row ``at`` of the image."""
        b, g = self.b, self.geometry
        width, stride, dilation = g.kernel[-1], g.strides[-1], g.dilations[-1]
        kind = f"{self.sums}x{self.lanes}"
        weights = [
            b.let(cast(self.weights(at[1], line, kw, part, 1), kind), "w") for kw in range(width)
        ]
        meets: dict[int, list[tuple[int, int]]] = {}
        for r in range(len(acc)):
            for kw in range(width):
                meets.setdefault(r * stride + kw * dilation, []).append((r, kw))
        for offset, pairs in sorted(meets.items()):
            place = column * stride + offset - self._left
            crosses = self.borders and not inside
            if crosses and isinstance(place, int) and not 0 <= place < int(self.image.width):
                continue
            ask = crosses and not isinstance(place, int)
            valid = tirx.all(place >= 0, place < index(self.image.width)) if ask else None
            with b.when(valid):
                x = self.image.tensor.load_raw([*at, index(place), self.lanes_of(part, 1)])
                held = b.let(cast(x, kind), "x")
                for r, kw in pairs:
                    self.store(acc[r], self.old(acc[r]) + held * weights[kw])


class _Bytes(_Depthwise):
    """Dot products of four neighbours along a row.

    Where the last four taps of a window are not all there, neighbouring outputs read the same
    columns, with weights that are moved on by the stride: a window of three and the next one lie
    in the same four columns. So a shuffle serves a group of outputs.
    """

    def emit(self) -> None:
        self.dot = ByteDot(self.lanes, byte_dot_intrinsic(self.cpu, self.lanes))
        width, depth = self.geometry.kernel[-1], self.dot.depth
        self.fours = -(-width // depth)
        slack = self.fours * depth - width
        self.group = slack // self.geometry.strides[-1] + 1
        self.border = element(self.ctx, _BORDER)
        columns = as_int(self.image.width)
        self.borders = as_int(self.width) is not None and columns is not None and columns >= depth
        if not self.borders:
            self.image = pad_image(self.b, self.image, self.geometry, self.border, slack)
        *lines, extent, block = self.image.tensor.shape
        self.flat = self.b.view(self.image.tensor, (*lines, extent * block))
        self.nest(self._row if self.borders else self._padded_row)

    def _padded_row(self, at: At) -> None:
        tiles = RowTiles(self.b, self.width, _QUAD, None)
        tiles.each(index(0), lambda start, size: self._tile(at, self.b.opaque(start), size, False))

    def _row(self, at: At) -> None:
        """A row of an image without a border around it.

        Rows whose windows cross the upper or the lower border test each row of the window.
        """
        tests = [
            t for line in self._corner_lines()
            for t in self._tests(self._source(at, line))
        ]  # fmt: skip
        if not tests:
            self._tiles(at, crosses=False)
            return
        inside = self.b.let(tirx.all(*tests), "inside")
        for crosses in (False, True):
            with self.b.when(tirx.Not(inside) if crosses else inside):
                self._tiles(at, crosses)

    def _corner_lines(self) -> list[At]:
        """The first and the last row of the window."""
        kernel = self.geometry.kernel[:-1]
        return [tuple(index(0) for _ in kernel), tuple(index(k - 1) for k in kernel)]

    def _tiles(self, at: At, crosses: bool) -> None:
        """Tiles of a row; those between the left and the right border share a loop."""
        count, rest = divmod(int(self.width), _QUAD)
        inner = [i for i in range(count) if self._is_inside(i * _QUAD, _QUAD)]
        for i in range(count):
            if i not in inner:
                self._tile(at, i * _QUAD, _QUAD, crosses)
            elif i == inner[0]:
                with self.b.loop(len(inner)) as c:
                    self._tile(at, self.b.let((c + i) * _QUAD, "column"), _QUAD, crosses)
        if rest:
            self._tile(at, count * _QUAD, rest, crosses)

    def _is_inside(self, column: int, size: int) -> bool:
        """Are all columns that a tile loads inside of the image?"""
        stride = self.geometry.strides[-1]
        last = (size - 1) // self.group * self.group
        first = column * stride - self._left
        return first >= 0 and first + last * stride + self.fours * self.dot.depth <= int(
            self.image.width
        )

    def _tile(self, at: At, column: Any, size: int, crosses: bool) -> None:
        """``size`` neighbouring outputs of a block of channels, from ``column`` on.

        ``crosses``: rows of their windows may lie outside of the image.
        """
        b = self.b
        acc = self.accumulators(at[1], 0, size)

        def line(taps: At, source: At) -> None:
            tests = self._tests(source) if crosses else []
            place = self._unshifted(source)
            with b.when(tirx.all(*tests) if tests else None):
                self._kernel_row(acc, (*at[:2], *place), column, taps)
            if tests and as_int(self.border) != 0:
                with b.otherwise():
                    self._border_row(acc, at[1], taps)

        self.kernel_lines(at, line)
        self.finish(acc, at, column, 0)

    def _kernel_row(self, acc: Sequence[BufferTensor], at: At, column: Any, line: At) -> None:
        """Add the products of row ``line`` of the window with row ``at`` of the image."""
        stride, depth = self.geometry.strides[-1], self.dot.depth
        weights = self._group_weights(at[1], line)
        for first in range(0, len(acc), self.group):
            start = (column + first) * stride - self._left
            fours = [self._four(at, start + i * depth) for i in range(self.fours)]
            for r in range(first, min(first + self.group, len(acc))):
                self._add(acc[r], fours, weights[r - first])

    def _border_row(self, acc: Sequence[BufferTensor], block: Expr, line: At) -> None:
        """Add the products of row ``line`` of the window with the border."""
        weights = self._group_weights(block, line)
        fours = [tirx.reinterpret(self._kind, self._border_bytes())] * self.fours
        for r in range(len(acc)):
            self._add(acc[r], fours, weights[r % self.group])

    def _add(self, acc: BufferTensor, fours: Sequence[Expr], weights: Sequence[Expr]) -> None:
        for four, w in zip(fours, weights, strict=True):
            self.store(acc, self.dot.add(self.old(acc), four, w))

    def _group_weights(self, block: Expr, line: At) -> list[list[Expr]]:
        """The weights of a row of the window, by fours, for each output of a group."""
        b, depth = self.b, self.dot.depth
        own = [b.let(self.weights(block, line, i, 0, depth), "w") for i in range(self.fours)]
        stride = self.geometry.strides[-1]
        return [[self._moved(own, i, r * stride) for i in range(self.fours)]
                for r in range(self.group)]  # fmt: skip

    def _moved(self, weights: Sequence[Expr], i: int, by: int) -> Expr:
        """The ``i``-th four of weights that are moved on by less than four columns."""
        if by == 0:
            return weights[i]
        bits, word = 8 * by, f"uint32x{self.lanes}"

        def shifted(w: Expr, shift: Callable[[Expr, Expr], Expr], count: int) -> Expr:
            counts = tirx.Broadcast(tirx.const(count, "uint32"), self.lanes)
            return shift(tirx.reinterpret(word, w), counts)

        moved = shifted(weights[i], tirx.shift_left, bits)
        if i > 0:
            carried = shifted(weights[i - 1], tirx.shift_right, 32 - bits)
            moved = tirx.bitwise_or(moved, carried)
        return self.b.let(tirx.reinterpret(self._kind, moved), "w")

    def _four(self, at: At, column: Any) -> Expr:
        """Four neighbouring columns, transposed: the four bytes of a channel are together.

        Those that are known to be outside of the image hold the border.
        """
        lanes, depth = self.lanes, self.dot.depth
        known, width = as_int(column), as_int(self.image.width)
        start, skipped, outside = column, 0, []
        if self.borders and known is not None and width is not None:
            start = max(0, min(known, width - depth))
            skipped = known - start
            outside = [t for t in range(depth) if not 0 <= known + t < width]
        if len(outside) == depth:
            return tirx.reinterpret(self._kind, self._border_bytes())
        ramp = tirx.Ramp(index(start) * lanes, index(1), depth * lanes)
        held = [self.flat.load_raw([*at, ramp])]
        if outside:
            held.append(self._border_bytes())

        def place(channel: int, t: int) -> int:
            beyond = depth * lanes
            return channel + (beyond if t in outside else (skipped + t) * lanes)

        order = [index(place(c, t)) for c in range(lanes) for t in range(depth)]
        return self.b.let(tirx.reinterpret(self._kind, tirx.Shuffle(held, order)), "x")

    @property
    def _kind(self) -> str:
        """The type of a register of bytes, as the dot product takes it."""
        return f"int8x{self.dot.depth * self.lanes}"

    def _border_bytes(self) -> Expr:
        return tirx.Broadcast(self.border, self.dot.depth * self.lanes)
