"""Direct convolution on blocked layouts.

``y[n, m, o, t] = sum_{c, k} x[n, c, o*stride + k*dilation - pad] * w[m, c, k, t]``: a tile of
neighbouring output positions times a few vectors of output channels stays in registers over the
whole sum. A padded image is copied once, so that the inner loops have no borders. Tiles lie in one
plane of rows and columns; a volume is one plane after the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from tvm import tirx

from ...ir.choices import DIRECT
from ...ir.graph import Graph, Node
from ...ir.ops.blocked import blocked_conv_window
from ...ir.registry import attribute
from ...ir.types import TensorType
from ...ir.windows import ConvShape
from ..generic.registry import Details, Template, TemplateContext
from ..tir.builder import as_int, flatten_index, index, static_product
from .dot import dot_of, packed_tile
from .features import CpuFeatures
from .image import Geometry, as_image, long_rows, pad_image
from .kernel_shapes import conv_shape
from .microkernel import Place, RegisterTile, Weights
from .positions import positions_of_tile, rows_of_tile
from .prefetch import LINE, NextTile, item_bytes, lines_of_tile, prefetch
from .row_tiles import RowTiles
from .tiling import Tile, tile_cost
from .winograd import Winograd, winograd_fits
from .winograd_forms import FORMS, Form

Expr = Any
At = tuple[Expr, ...]

_TURNS = 4
"""Pieces of a block's steps over which prefetches of operands are spread."""
_FEW_USES = 32
"""Tiles of positions beyond which the first use of weights does not matter."""


def conv_blocked(cpu: CpuFeatures) -> Template:
    """The template of ``kiln.ConvBlocked`` for one CPU."""

    def template(ctx: TemplateContext) -> None:
        x, w = ctx.input_types[0], ctx.input_types[1]
        assert x is not None and w is not None
        geometry = Geometry.of(blocked_conv_window(ctx.node, x, w))
        form = _winograd_form(ctx, cpu, conv_shape(ctx.node, x, w))
        if form is None:
            _Dense(ctx, cpu, geometry).emit()
            return
        image = as_image(ctx.b, ctx.buffered(0))
        Winograd(ctx, cpu, form, image, geometry, ctx.buffered(1)).emit()

    def details(graph: Graph, node: Node) -> Details:
        x, w = (v.tensor_type for v in graph.required_inputs(node)[:2])
        lanes, algorithm = _lanes(cpu, node), str(attribute(node, "algorithm"))
        tile, shape = _register_tile(cpu, node, x, w), conv_shape(node, x, w)
        if algorithm == DIRECT:
            tile = replace(tile, rows=positions_of_tile(shape, tile.rows))
        return Details(tile.text(lanes), algorithm)

    return Template(template, details)


def _register_tile(cpu: CpuFeatures, node: Node, x: TensorType, w: TensorType) -> Tile:
    """The largest tile of positions by output channels; ``w`` are the packed weights."""
    depth, width = int(attribute(node, "depth")), int(w.dims[-1])
    return packed_tile(cpu, x.dtype.name, width, depth, _lanes(cpu, node))


def _lanes(cpu: CpuFeatures, node: Node) -> int:
    """Channels in a register."""
    return min(cpu.lanes, int(attribute(node, "block")))


def _winograd_form(ctx: TemplateContext, cpu: CpuFeatures, shape: ConvShape) -> Form | None:
    """The form that the node asks for; None for a direct convolution."""
    algorithm = str(ctx.attr("algorithm"))
    if algorithm == DIRECT:
        return None
    form = FORMS.get(algorithm)
    if form is None:
        raise ctx.error(f"there is no algorithm {algorithm!r}: {DIRECT}, {', '.join(FORMS)}")
    blocked = as_int(ctx.input(0).shape[-1]) == cpu.lanes
    if not (blocked and winograd_fits(shape, cpu.lanes)):
        raise ctx.error("this convolution has no Winograd form")
    return form


@dataclass(frozen=True)
class _Positions:
    """``size`` output positions from (``row``, ``column``) on: of one row, or whole rows of
    ``width`` positions.

    ``plane`` are the indices of the dims before the rows: a volume has one, an image none.
    """

    batch: Expr
    plane: At
    row: Expr
    column: Expr
    size: int
    width: int = 0

    def at(self, r: int) -> At:
        """The index of position ``r``."""
        down, along = divmod(r, self.width) if self.width else (0, r)
        return (*self.plane, self.row + down, self.column + along)


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
        self.lanes = _lanes(cpu, ctx.node)
        x, w = ctx.input_types[0], ctx.input_types[1]
        assert x is not None and w is not None
        tile = _register_tile(cpu, ctx.node, x, w)
        self.limit, self.vectors = tile.rows, tile.vectors
        self.pieces = 1
        """Parts of a block's steps, with prefetches before each."""
        self.dot = dot_of(cpu, x.dtype.name, depth, self.lanes)

    def emit(self) -> None:
        image = as_image(self.b, self.ctx.buffered(0))
        n, _, *spatial, _ = self.ctx.out_shape()
        self.rank = len(spatial)
        extents = spatial if self.rank > 1 else (1, *spatial)
        self.order = long_rows(image, self.geometry)
        if self.order != tuple(range(len(extents))):
            image = image.reordered(self.b, self.order)
            self.geometry = self.geometry.reordered(self.order)
        self.image = pad_image(self.b, image, self.geometry, int(self.ctx.attr("pad_value")))
        self.leaps = self._leaps()
        if self.leaps:
            self.pieces = _TURNS
        *planes, height, width = (extents[i] for i in self.order)
        self.planes = tuple(planes)
        fixed = as_int(width)
        whole = rows_of_tile(as_int(height), fixed, self.limit)
        if whole:
            assert fixed is not None
            self._rows(n, RowTiles(self.b, height, whole, self._others(n)), fixed)
        elif as_int(height) == 1:
            self._rows(n, RowTiles(self.b, width, self.limit, self._others(n)), None)
        else:
            self._by_row(n, height, width)

    def _others(self, n: Any) -> int:
        return (as_int(n) or 1) * self.groups * self.tiles * (static_product(self.planes) or 1)

    def _cost(self, positions: int) -> int:
        """The cost of a task of so many positions."""
        steps = self.in_blocks * self.steps * self.dot.depth * prod(self.geometry.kernel)
        return tile_cost(2 * steps * self.tile_width * positions)

    def _rows(self, n: Any, rows: RowTiles, width: int | None) -> None:
        """Tiles of whole rows of ``width`` positions, or (None) of parts of a single row."""
        planes = static_product(self.planes)
        uses = None if rows.tiles is None or planes is None else planes * rows.tiles
        ahead = self._prefetch(uses)

        def task(at: At) -> None:
            batch, group, tile, *plane, part = at
            earlier = flatten_index(plane, self.planes) * (rows.tiles or 0)

            def one(start: Expr, size: int) -> None:
                begin = (index(0), start) if width is None else (start, index(0))
                next_tile = None if ahead is None else (ahead, earlier + rows.number(start))
                there = _Positions(batch, tuple(plane), *begin, size * (width or 1), width or 0)
                self._tile(group, tile, there, next_tile)

            rows.each(part, one)

        cost = self._cost(rows.rows_of_group * (width or 1))
        tasks = (n, self.groups, self.tiles, *self.planes, rows.groups)
        self.b.nest(tasks, task, cost, sequential_last=True)

    def _prefetch(self, uses: int | None) -> NextTile | None:
        """For weights that are used only a few times."""
        if uses is None or not 2 <= uses <= _FEW_USES or self.groups * self.tiles == 1:
            return None
        tiles = self.groups * self.tiles
        places = self.in_blocks * prod(self.geometry.kernel)
        lines = -(-lines_of_tile(self.weight, tiles) // (places * uses))
        while 2 * self.pieces <= lines and self.steps % (2 * self.pieces) == 0:
            self.pieces *= 2
        return NextTile(self.b, self.weight, tiles, uses, places * self.pieces)

    def _by_row(self, n: Any, height: Any, width: Any) -> None:
        """A task is a row, cut into tiles."""

        def task(at: At) -> None:
            batch, group, tile, *plane, row = at

            def part(start: Expr, size: int) -> None:
                there = _Positions(batch, tuple(plane), row, start, size)
                self._tile(group, tile, there, None)

            RowTiles(self.b, width, self.limit, None).each(index(0), part)

        cost = self._cost(as_int(width) or 64)
        tasks = (n, self.groups, self.tiles, *self.planes, height)
        self.b.nest(tasks, task, cost, sequential_last=True)

    def _outside(self, at: At) -> At:
        """Indices along this kernel's dims as those along the op's own."""
        return tuple(at[self.order.index(i)] for i in range(len(at)))[-self.rank :]

    def _tile(
        self, group: Expr, tile: Expr, there: _Positions, ahead: tuple[NextTile, Expr] | None
    ) -> None:
        """Some output positions, all channels of one register tile."""
        b, g = self.b, self.geometry
        acc = RegisterTile(b, there.size, self.vectors, self.dot)
        self._start(acc, group, tile)
        channel_block = group * self.in_blocks

        def operand(r: int, k: At, c: Expr) -> Place:
            _, *window, i = k
            steps = zip(there.at(r), g.strides, window, g.dilations, strict=True)
            place = (o * stride + t * dilation for o, stride, t, dilation in steps)
            return self.image.tensor, (there.batch, channel_block + c, *place, i)

        def weights(k: At, c: Expr) -> Weights:
            _, *window, i = k
            return self.weight, (group, tile, c, *self._outside(tuple(window)), i)

        def fetch(following: NextTile, use: Expr, window: At, piece: Expr) -> None:
            place = flatten_index(window, (self.in_blocks, *g.kernel))
            following.fetch(group * self.tiles + tile, use, place * self.pieces + piece)

        def add(first: int, blocks: int, steps: int) -> None:
            pieces = self.pieces if steps == self.steps else 1
            with self._places(blocks, pieces) as (*window, piece):
                if ahead is not None:
                    fetch(*ahead, (window[0] + first, *window[1:]), piece)
                if self.leaps and pieces > 1 and not there.width:
                    self._fetch_operands(there, group, window[0] + first, piece)
                with b.loop(steps // pieces) as inner:
                    k = (*window, piece * (steps // pieces) + inner)
                    c = window[0] + first
                    acc.step(lambda r: operand(r, k, c), weights(k, c))

        for part in self._sums():
            add(*part)
        self._finish(acc, group, tile, there)

    @contextmanager
    def _places(self, blocks: int, pieces: int) -> Iterator[At]:
        """A loop over blocks of channels, the window's positions, and pieces of a block.

        Single channels come last: neighbouring positions of a window share operands, which LLVM
        would keep over the unrolled loop in registers that there are not.
        """
        if self.steps > 1:
            with self.b.grid(blocks, *self.geometry.kernel, pieces) as at:
                yield at
        else:
            with self.b.grid(*self.geometry.kernel, blocks) as (*window, block):
                yield (block, *window, index(0))

    def _leaps(self) -> bool:
        """Is a line of operands used up by a block's steps, and the next one far away?

        That is so where windows are single positions. No hardware foresees the leap.
        """
        line = self.block * item_bytes(self.image.tensor) == LINE
        whole = self.steps % _TURNS == 0
        return line and whole and prod(self.geometry.kernel) == 1 and self.in_blocks > 1

    def _fetch_operands(self, there: _Positions, group: Expr, block: Expr, piece: Expr) -> None:
        """Prefetch a piece of the operands that follow those of a block.

        They are of the next block, or after the last one of the first block at later positions.
        """
        b, lines = self.b, -(-there.size // self.pieces)
        more = block + 1 < index(self.in_blocks)
        following = b.let(group * self.in_blocks + tirx.Select(more, block + 1, index(0)))
        *lead, column = there.at(0)
        first = b.let(column + tirx.Select(more, index(0), index(there.size)))
        for n in range(lines):
            r = tirx.min(piece * lines + n, index(there.size - 1))
            steps = zip((*lead, first + r), self.geometry.strides, strict=True)
            place = (o * stride for o, stride in steps)
            prefetch(b, self.image.tensor, (there.batch, following, *place, index(0)))

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

    def _finish(self, acc: RegisterTile, group: Expr, tile: Expr, there: _Positions) -> None:
        b = self.b
        per_tile = self.tile_width // self.block
        blocks = as_int(self.ctx.out_shape()[1])
        assert blocks is not None
        for v in range(self.vectors):
            offset = v * self.lanes
            block = (group * self.tiles + tile) * per_tile + offset // self.block
            whole = self.groups * self.tiles * per_tile == blocks
            with b.when(None if whole else block < blocks):
                for r in range(there.size):
                    position = self._outside(there.at(r))
                    with b.lanes(self.lanes) as lane:
                        self.ctx.sink(
                            (there.batch, block, *position, offset % self.block + lane),
                            acc.value(r, v, lane),
                        )
