"""Direct convolution on blocked layouts.

``y[n, m, o, t] = sum_{c, k} x[n, c, o*stride + k*dilation - pad] * w[m, c, k, t]``, where ``o`` is
an output position, ``k`` a position in the window, ``c`` an input channel, and ``t`` an output
channel in tile ``m``. A register tile is some neighbouring output positions by a few vectors of
output channels, such as 14 by 32, and holds its sums over all ``c`` and ``k``.

Where there is padding, the padded image is copied once, so that the inner loops have no borders.
Tiles lie in one plane of rows and columns; a volume is one plane after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from typing import Any

from tvm import tirx

from ...ir.choices import DIRECT, LISTED
from ...ir.graph import Graph, Node
from ...ir.ops.blocked import blocked_conv_window
from ...ir.registry import attribute
from ...ir.types import TensorType
from ...ir.windows import ConvShape
from ..generic.registry import Details, Template, TemplateContext, operand_types
from ..tir.extents import as_int, flatten_index, index, static_product, unflatten
from .dot import dot_of, packed_tile
from .features import CpuFeatures
from .image import Geometry, as_image, element, long_rows, pad_image
from .kernel_shapes import conv_shape, conv_shape_of, packed_width
from .microkernel import Place, RegisterTile, Weights
from .narrow import byte_packer, store_vectors
from .positions import positions_of_tile, rows_of_tile
from .prefetch import LINE, NextTile, item_bytes, lines_of_tile, prefetch
from .residual import BORDER, Residual
from .row_tiles import RowTiles
from .tiling import Tile, tile_cost
from .winograd import Winograd
from .winograd_choice import winograd_forms
from .winograd_forms import FORMS, Form

Expr = Any
At = tuple[Expr, ...]

_PIECES = 4
"""Parts that the steps over a block of channels are cut into, to prefetch operands before each."""
_FEW_USES = 32
"""Weights that more tiles of positions use are not prefetched: only the first use has to wait."""


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
        x, w = operand_types(graph, node, 2)
        lanes, algorithm = _lanes(cpu, node), str(attribute(node, "algorithm"))
        tile, shape = _register_tile(cpu, graph, node, x), conv_shape(node, x, w)
        if algorithm == DIRECT:
            tile = replace(tile, rows=positions_of_tile(shape, tile.rows))
        return Details(tile.text(lanes), algorithm if w.dims[-1] else LISTED)

    return Template(template, details, shape=conv_shape_of, level=2)


def _register_tile(cpu: CpuFeatures, graph: Graph, node: Node, x: TensorType) -> Tile:
    """The largest tile of positions by output channels."""
    depth, width = int(attribute(node, "depth")), packed_width(graph, node)
    return packed_tile(cpu, x.dtype.name, width, depth, _lanes(cpu, node))


def _lanes(cpu: CpuFeatures, node: Node) -> int:
    """Channels in a register."""
    return min(cpu.lanes, int(attribute(node, "block")))


def _winograd_form(ctx: TemplateContext, cpu: CpuFeatures, shape: ConvShape) -> Form | None:
    """The Winograd form that the node asks for; None for a direct convolution."""
    algorithm = str(ctx.attr("algorithm"))
    if algorithm == DIRECT:
        return None
    if algorithm not in FORMS:
        raise ctx.error(f"there is no algorithm {algorithm!r}: {DIRECT}, {', '.join(FORMS)}")
    # Who chose the form has seen the weights, on which the length of sums depends.
    form = winograd_forms(cpu, replace(shape, short_sums=shape.integer)).get(algorithm)
    blocked = as_int(ctx.input(0).shape[-1]) == cpu.lanes
    if form is None or not blocked:
        raise ctx.error(f"this convolution has no form {algorithm!r}")
    return form


@dataclass(frozen=True)
class _Positions:
    """``size`` output positions of image ``batch``, from (``row``, ``column``) on.

    They are part of one row, or if ``width`` is not 0, whole rows of that width. ``plane`` is the
    index in the dims before the rows: one element for a volume, none for an image.
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
        self.bias = ctx.buffered(2) if ctx.has(2) else None
        self.groups, self.tiles, self.in_blocks = (int(d) for d in self.weight.shape[:3])
        depth = int(ctx.attr("depth"))
        self.steps, own = (int(d) for d in self.weight.shape[-2:])
        self.is_listed = own == 0
        self.tile_width = packed_width(ctx.graph, ctx.node) // depth
        self.block = int(ctx.attr("block"))
        self.lanes = _lanes(cpu, ctx.node)
        x = ctx.input_types[0]
        assert x is not None
        tile = _register_tile(cpu, ctx.graph, ctx.node, x)
        self.limit, self.vectors = tile.rows, tile.vectors
        self.pieces = 1
        """Parts of the steps over a block of channels; each begins with prefetches."""
        self.dot = dot_of(cpu, x.dtype.name, depth, self.lanes)

    def emit(self) -> None:
        """Emit the kernel, by one of three ways to cut an image into tiles."""
        image = as_image(self.b, self.ctx.buffered(0))
        n, _, *spatial, _ = self.ctx.out_shape()
        self.rank = len(spatial)
        extents = spatial if self.rank > 1 else (1, *spatial)
        self.order = long_rows(image, self.geometry)
        if self.order != tuple(range(len(extents))):
            image = image.reordered(self.b, self.order)
            self.geometry = self.geometry.reordered(self.order)
        # Positions of a tile follow each other in memory, unless rows and columns are exchanged.
        in_order = self.order == tuple(range(len(extents)))
        self.pack = byte_packer(self.cpu) if in_order and self.lanes == self.block else None
        self.image = pad_image(self.b, image, self.geometry, element(self.ctx, BORDER))
        self.residual = self._residual()
        self.operands_jump = self._operands_jump()
        if self.operands_jump:
            self.pieces = _PIECES
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

    def _residual(self) -> Residual:
        """The residual of the weights; its steps are numbered as the main part's."""
        dilations = self.geometry.dilations

        def operand(step: Expr) -> At:
            block, *own, i = unflatten(step, self.weight.shape[2:-1])
            window = zip(self._inside(tuple(own)), dilations, strict=True)
            return (index(0), block, *(k * dilation for k, dilation in window), i)

        return Residual(self.ctx, self.image.tensor, self.dot.depth, operand)

    def _others(self, n: Any) -> int:
        """How many tasks there are besides those that the positions of a plane are cut into."""
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
        """The prefetching of weights, for those that few tiles of positions use; else None.

        Sets ``pieces`` so that about one line is prefetched at a time, as far as steps can be cut.
        """
        few = uses is None or not 2 <= uses <= _FEW_USES or self.groups * self.tiles == 1
        if uses is None or few or self.is_listed:
            return None
        tiles = self.groups * self.tiles
        places = self.in_blocks * prod(self.geometry.kernel)
        lines = -(-lines_of_tile(self.weight, tiles) // (places * uses))
        while 2 * self.pieces <= lines and self.steps % (2 * self.pieces) == 0:
            self.pieces *= 2
        return NextTile(self.b, self.weight, tiles, uses, places * self.pieces)

    def _by_row(self, n: Any, height: Any, width: Any) -> None:
        """Tiles of parts of rows, where a row is wider than a tile: a task is a row."""

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
        """An index in the order of dims of this kernel, as one in the op's own order."""
        return tuple(at[self.order.index(i)] for i in range(len(at)))[-self.rank :]

    def _inside(self, at: At) -> At:
        """An index in the op's own order of dims, as one in the order of this kernel."""
        padded = (*[index(0)] * (len(self.order) - self.rank), *at)
        return tuple(padded[i] for i in self.order)

    def _tile(
        self, group: Expr, tile: Expr, there: _Positions, ahead: tuple[NextTile, Expr] | None
    ) -> None:
        """The sums of one register tile: some output positions, and the channels of ``tile``.

        ``ahead`` is what prefetches weights, and the number of this use of them.
        """
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
                if self.operands_jump and pieces > 1 and not there.width:
                    self._fetch_operands(there, group, window[0] + first, piece)
                with b.loop(steps // pieces) as inner:
                    k = (*window, piece * (steps // pieces) + inner)
                    c = window[0] + first
                    acc.step(lambda r: operand(r, k, c), weights(k, c))

        def first(r: int) -> At:
            corner = (o * stride for o, stride in zip(there.at(r), g.strides, strict=True))
            return (there.batch, channel_block, *corner, index(0))

        part = group * self.tiles + tile
        if self.is_listed:
            self.residual.add_alone(acc, part, first)
        else:
            for run in self._sums():
                add(*run)
            self.residual.add(acc, part, first)
        self._finish(acc, group, tile, there)

    @contextmanager
    def _places(self, blocks: int, pieces: int) -> Iterator[At]:
        """A loop over blocks of channels, the window's positions, and pieces of a block.

        Where a block is a single step (a few input channels, as in a first layer), blocks are the
        innermost loop. Otherwise LLVM would unroll the loop over window positions and keep operands
        that neighbouring positions share, for which there are no registers left.
        """
        if self.steps > 1:
            with self.b.grid(blocks, *self.geometry.kernel, pieces) as at:
                yield at
        else:
            with self.b.grid(*self.geometry.kernel, blocks) as (*window, block):
                yield (block, *window, index(0))

    def _operands_jump(self) -> bool:
        """Do operands jump through memory from block to block?

        For 1x1 windows, a block's steps read one cache line for each position, and the lines of the
        next block are a whole image away. Hardware does not predict that, so the kernel prefetches.
        """
        line = self.block * item_bytes(self.image.tensor) == LINE
        whole = self.steps % _PIECES == 0
        return line and whole and prod(self.geometry.kernel) == 1 and self.in_blocks > 1

    def _fetch_operands(self, there: _Positions, group: Expr, block: Expr, piece: Expr) -> None:
        """Prefetch part ``piece`` of the operands that are needed after those of ``block``.

        These are the next block's at the same positions, and after the last block the first block's
        at the following positions.
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
        """Runs of blocks of input channels: (first, count, steps of each)."""
        channels = int(self.ctx.attr("in_channels")) // self.groups
        depth = int(self.ctx.attr("depth"))
        whole, rest = divmod(-(-channels // depth), self.steps)
        parts = [(0, whole, self.steps), (whole, 1, rest)]
        return [part for part in parts if part[1] * part[2] > 0]

    def _start(self, acc: RegisterTile, group: Expr, tile: Expr) -> None:
        """Set the sums to the bias, or to zero."""
        if self.bias is None:
            acc.zero()
            return
        size = as_int(self.bias.shape[0])
        assert size is not None
        flat = self.b.view(self.bias, (size * self.block,))
        base = (group * self.tiles + tile) * self.tile_width

        def value(_r: int, v: int) -> Expr:
            return flat.load_raw([tirx.Ramp(base + v * self.lanes, index(1), self.lanes)])

        acc.fill(value)

    def _finish(self, acc: RegisterTile, group: Expr, tile: Expr, there: _Positions) -> None:
        """Give the results to the epilogue, which stores them; drop blocks that only pad a tile."""
        b = self.b
        per_tile = self.tile_width // self.block
        blocks = as_int(self.ctx.out_shape()[1])
        assert blocks is not None
        for v in range(self.vectors):
            offset = v * self.lanes
            block = (group * self.tiles + tile) * per_tile + offset // self.block
            whole = self.groups * self.tiles * per_tile == blocks
            with b.when(None if whole else block < blocks):
                places = [
                    (there.batch, block, *self._outside(there.at(r)), index(offset % self.block))
                    for r in range(there.size)
                ]
                store_vectors(self.ctx, places, self._values(acc, v), self.lanes, self.pack)

    @staticmethod
    def _values(acc: RegisterTile, vector: int) -> Callable[[int, Expr], Expr]:
        """The sums in one vector of channels, by position and lane."""
        return lambda r, lane: acc.value(r, vector, lane)
