"""Winograd convolution: 3x3 windows by fewer multiplications.

The image is cut into tiles of 2x2 or 4x4 outputs. Inputs and weights are transformed (see
:mod:`.winograd_forms`), so that each tile has 16 or 36 points, and each point is a matrix product
of its own: tiles by input channels, times input channels by filters.

Weights are transformed at run time, because transformed weights take two to four times the memory.
Only as many as fit into the cache are transformed before they are used.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

from tvm import tirx

from ..generic.registry import TemplateContext
from ..tir.builder import BufferTensor, Builder
from ..tir.extents import as_int, index, product
from ..tir.numeric import cast
from .dot import dot_of
from .features import CpuFeatures
from .image import Geometry, Image, element
from .microkernel import RegisterTile
from .packing import tiles_of
from .prefetch import NextTile
from .residual import BORDER
from .tiling import cover, largest_tile, tile_cost
from .winograd_choice import GUESS
from .winograd_forms import Arithmetic, Form

Expr = Any
At: TypeAlias = tuple[Expr, ...]
Runs: TypeAlias = list[tuple[int, Any]]
"""Register tiles as (rows of each, how many); a row is a tile of the image."""

_GROUP = 112
"""Tiles of the image whose products are kept until they are transformed to outputs."""
_CHUNK = 4
"""Blocks of channels whose weights are transformed together, before they are used."""
_EXCHANGE = 2
"""A loop needs so many times the usual work before it is shared by cores: see ``_cost``."""


class _Groups:
    """``tiles`` of an image, cut into groups, and these into register tiles of at most ``limit``.

    If all tiles fit into one group, register tiles cover them exactly. Else all register tiles have
    one size, and the last may reach beyond the end: buffers for all tiles need ``capacity``.
    """

    def __init__(self, b: Builder, tiles: Any, limit: int) -> None:
        self._b, self._tiles = b, tiles
        known = as_int(tiles)
        self._runs = None
        self.count: Any = 1
        self.size, self.capacity = known or 0, tiles
        if known is not None and known <= _GROUP:
            self._runs = cover(known, limit)
            return
        self._rows = limit if known is None else cover(known, limit)[0][0]
        self._most = max(1, _GROUP // self._rows)
        if known is not None:
            self._most = cover(tiles_of(known, self._rows), self._most)[0][0]
        self.size = self._most * self._rows
        self.count = tiles_of(tiles, self.size)
        self.capacity = tiles_of(tiles, self._rows) * self._rows

    def at(self, g: Expr) -> tuple[Expr, Any, Runs]:
        """The ``g``-th group: its first tile, how many it has, and its register tiles."""
        if self._runs is not None:
            return index(0), self.size, self._runs
        b = self._b
        first = b.opaque(g * self.size)
        here = b.opaque(tirx.min(index(self.size), index(self._tiles) - first))
        return first, here, [(self._rows, tiles_of(here, self._rows))]


@dataclass(frozen=True)
class _Part:
    """Tiles of an image from ``first`` on, and a block of filters."""

    image: Expr
    filters: Expr
    first: Expr


@dataclass(frozen=True)
class _Terms:
    """The operands of the products: transformed ``inputs``, from tile ``row`` on, and ``weights``.

    The sum is over ``blocks`` blocks of channels, which begin with block ``first`` of the inputs
    and with block 0 of ``weights[*lead]``. ``ahead`` prefetches untransformed weights, of the block
    that follows the given one.
    """

    inputs: BufferTensor
    row: Expr
    weights: BufferTensor
    lead: At
    first: Expr
    blocks: int
    ahead: tuple[NextTile, Expr] | None = None


class Winograd:
    """One convolution; ``weight`` is packed as for ``ConvBlocked``."""

    def __init__(
        self, ctx: TemplateContext, cpu: CpuFeatures, form: Form, image: Image, g: Geometry,
        weight: BufferTensor,
    ) -> None:  # fmt: skip
        self.ctx = ctx
        self.b = ctx.b
        self.form = form
        self.image = image
        self.weight = weight
        self.top, self.left = ctx.b.dim(g.begin[0]), ctx.b.dim(g.begin[1])
        self.batch, self.out_blocks, self.height, self.width, block = ctx.out_shape()
        self.down = tiles_of(self.height, self.form.outputs)
        self.across = tiles_of(self.width, self.form.outputs)
        self.tiles = product((self.down, self.across))
        self.filter_blocks, self.blocks = int(weight.shape[1]), int(weight.shape[2])
        self.lanes = int(block)
        self.dot = dot_of(cpu, image.tensor.dtype, int(ctx.attr("depth")), self.lanes)
        self.depth, self.sums = self.dot.depth, self.dot.sums
        self.operands = "float32" if self.sums == "float32" else "int16"
        border = cast(element(ctx, BORDER), self.operands)
        self.border = tirx.Broadcast(border, self.lanes)
        self.tile_width = int(weight.shape[-1]) // self.depth
        tile = largest_tile(cpu, self.tile_width // self.lanes, self.dot.cost)
        self.limit, self.vectors = tile.rows, tile.vectors
        self.near, self.cached = cpu.l2 * 5 // 16, cpu.l2 * 5 // 4
        """Bytes that stay in the second-level cache beside other data; bytes that mostly do."""
        self.bias = None
        if ctx.has(2):
            bias = ctx.buffered(2)
            self.bias = ctx.b.view(bias, (bias.shape[0], self.lanes))

    def emit(self) -> None:
        if self._fits_rows():
            self._by_rows()
        else:
            self._by_filters()

    def _fits_rows(self) -> bool:
        """Do all transformed weights stay in the cache, to be read again for every row of tiles?

        Then they are transformed once. But the register tiles cover one row of tiles at a time, so
        short rows waste part of them, which pays only if there are few weights.
        """
        weights = self.form.points * self.blocks * self.lanes * self.filter_blocks
        size = weights * self.tile_width * (4 if self.operands == "float32" else 2)
        across = as_int(self.across)
        long = across is None or across >= self.limit
        return size <= self.near or (size <= self.cached and long)

    def _by_rows(self) -> None:
        """Transform all weights first, then compute one row of tiles after the other."""
        b = self.b
        weights = self._weights(self.filter_blocks, self.blocks)

        def transform(at: At) -> None:
            self._transform_weights(weights, at, *at)

        parts = (self.filter_blocks, self.blocks)
        b.nest(parts, transform, self._cost(prod(parts)), sequential_last=True)
        groups = _Groups(b, self.across, self.limit)

        def row(at: At) -> None:
            n, down = at
            inputs = self._inputs(groups.capacity)
            with b.loop(self.blocks) as block:
                self._input_row(n, block, down, inputs, index(0))
            with b.loop(self.filter_blocks) as f, b.loop(groups.count) as g:
                first, count, runs = groups.at(g)
                sums = self._sums_of(groups)
                terms = _Terms(inputs, first, weights, (f,), index(0), self.blocks)
                self._multiply(terms, sums, runs)
                self._finish(_Part(n, f, down * self.across + first), sums, count)

        cost = self._cost(as_int(self.down) or GUESS // self.form.outputs)
        b.nest((self.batch, self.down), row, cost, sequential_last=True)

    def _by_filters(self) -> None:
        """Transform all inputs of an image first; then, a task is a block of filters and a group.

        A task transforms the weights of a few blocks of channels and multiplies them while they are
        in the cache, then those of the next blocks. In between its sums are in memory. Weights are
        transformed again for every group of tiles.
        """
        b = self.b
        groups = _Groups(b, self.tiles, self.limit)
        with b.loop(self.batch) as n:
            inputs = self._inputs(groups.capacity)

            def row(at: At) -> None:
                self._input_row(n, at[0], at[1], inputs, at[1] * self.across)

            tasks = self.blocks * (as_int(self.down) or GUESS // self.form.outputs)
            b.nest((self.blocks, self.down), row, self._cost(tasks), sequential_last=True)

            def task(at: At) -> None:
                f, (first, count, runs) = at[0], groups.at(at[1])
                sums = self._sums_of(groups)
                if self.blocks > _CHUNK:
                    self._zero(sums)
                done: Any = 0
                for blocks, times in cover(self.blocks, _CHUNK):
                    with b.loop(times) as k:
                        begin = b.opaque(index(done + k * blocks))
                        self._chunk(f, (begin, blocks), (inputs, first), sums, runs)
                    done = done + blocks * times
                self._finish(_Part(n, f, first), sums, count)

            cost = self._cost(self.filter_blocks * (as_int(groups.count) or 1))
            b.nest((self.filter_blocks, groups.count), task, cost, sequential_last=True)

    def _chunk(
        self, f: Expr, channels: tuple[Expr, int], inputs: tuple[BufferTensor, Expr],
        sums: BufferTensor, runs: Runs,
    ) -> None:  # fmt: skip
        """Add the products of some blocks of ``channels``, (first, how many), to ``sums``."""
        b = self.b
        begin, blocks = channels
        weights = self._weights(blocks)
        with b.loop(blocks) as c:
            self._transform_weights(weights, (c,), f, begin + c)
        uses = as_int(sum(count for _, count in runs))
        uses = None if uses is None else self.form.points * uses
        following = NextTile(b, self.weight, self.filter_blocks * self.blocks, uses, turns=1)
        ahead = (following, f * self.blocks + begin + (blocks - 1))
        self._multiply(_Terms(*inputs, weights, (), begin, blocks, ahead), sums, runs)

    def _cost(self, tasks: int) -> int:
        """The cost of one task, where ``tasks`` tasks share an image's work.

        All loops of the kernel have the same cost, a share of the whole: one core reads what others
        have transformed, so the cores should share all of the loops or none. A small kernel gains
        nothing from a second core even where one of its loops would.
        """
        tiles = as_int(self.tiles) or _GROUP
        depth, filters = self.blocks * self.lanes, self.filter_blocks * self.tile_width
        products = 2 * self.form.points * tiles * depth * filters
        image = self.form.image_cost * tiles * (depth + filters)
        transforms = self.form.weight_cost * depth * filters + image
        return tile_cost((products + transforms) // (tasks * _EXCHANGE))

    def _inputs(self, tiles: Any) -> BufferTensor:
        shape = (self.blocks, self.form.points, tiles, self.lanes)
        return self.b.workspace(shape, self.operands, "inputs")

    def _weights(self, *lead: int) -> BufferTensor:
        step = (self.lanes // self.depth, self.tile_width * self.depth)
        return self.b.workspace((*lead, self.form.points, *step), self.operands, "weights")

    def _sums_of(self, groups: _Groups) -> BufferTensor:
        shape = (groups.size, self.form.points, self.tile_width)
        return self.b.workspace(shape, self.sums, "sums")

    # ---- inputs ------------------------------------------------------------------------------

    def _input_row(
        self, n: Expr, block: Expr, down: Expr, inputs: BufferTensor, base: Expr
    ) -> None:
        """Transform the inputs of a row of tiles, into ``inputs`` from tile ``base`` on.

        ``B^T d`` is computed for all columns first, then the product with ``B`` for each tile.
        """
        b, a = self.b, Arithmetic(self.b, self.lanes, self.operands)
        columns = self.across * self.form.outputs + 2
        rows = b.workspace((self.form.inputs, columns, self.lanes), self.operands, "rows")
        border = self.form.input(a, [self.border] * self.form.inputs)
        ends = self.image.width + self.left
        for start, stop in ((0, self.left), (ends, columns)):
            with b.loop(stop - start) as w:
                for i in range(self.form.inputs):
                    rows.store_raw([index(i), w + start, self._ramp()], border[i])
        first = b.let(down * self.form.outputs - self.top, "row")
        height = index(self.image.height)
        inside = tirx.all(first >= 0, first + self.form.inputs <= height)
        for whole in (True, False):
            with b.when(inside if whole else tirx.Not(inside)), b.loop(self.image.width) as w:
                values = [
                    self._pixel(a, (n, block, first + i, w), whole) for i in range(self.form.inputs)
                ]
                for i, v in enumerate(self.form.input(a, values)):
                    rows.store_raw([index(i), w + self.left, self._ramp()], v)
        with b.loop(self.across) as t:
            tile = b.opaque(base + t)
            for i in range(self.form.inputs):
                line = [
                    a.let(rows.load_raw([index(i), t * self.form.outputs + j, self._ramp()]))
                    for j in range(self.form.inputs)
                ]
                for j, v in enumerate(self.form.input(a, line)):
                    inputs.store_raw(
                        [block, index(i * self.form.inputs + j), tile, self._ramp()], v
                    )

    def _pixel(self, a: Arithmetic, at: At, whole: bool) -> Expr:
        """A vector of channels; the border's outside of the image, unless the row is known to be
        inside.
        """
        (n, block, row, column), kind = at, f"{a.dtype}x{a.lanes}"
        x, height = self.image.tensor, index(self.image.height)
        if whole:
            return a.let(cast(x.load_raw([n, block, row, column, self._ramp()]), kind))
        clamped = tirx.max(index(0), tirx.min(row, height - 1))
        inside = tirx.all(row >= 0, row < height)
        value = cast(x.load_raw([n, block, clamped, column, self._ramp()]), kind)
        return a.let(tirx.Select(inside, value, self.border))

    # ---- products ----------------------------------------------------------------------------

    def _transform_weights(self, weights: BufferTensor, lead: At, f: Expr, c: Expr) -> None:
        """Transform the weights of one block of channels and one block of filters."""
        b = self.b
        with b.loop(self.lanes // self.depth) as i, b.loop(self.vectors) as v:
            self._transform_weight(weights, lead, (f, c), i, v)

    def _transform_weight(
        self, weights: BufferTensor, lead: At, block: At, i: Expr, v: Expr
    ) -> None:
        """``G g G^T`` for the input channels of one step and a vector of filters."""
        a = Arithmetic(self.b, self.lanes * self.depth, self.operands)
        lanes = tirx.Ramp(v * a.lanes, index(1), a.lanes)

        def tap(kh: int, kw: int) -> Expr:
            at = [index(0), *block, index(kh), index(kw), i, lanes]
            return a.let(cast(self.weight.load_values(at), f"{a.dtype}x{a.lanes}"))

        columns = [self.form.weight(a, [tap(kh, kw) for kh in range(3)]) for kw in range(3)]
        for row in range(self.form.inputs):
            for j, value in enumerate(self.form.weight(a, [column[row] for column in columns])):
                weights.store_raw([*lead, index(row * self.form.inputs + j), i, lanes], value)

    def _multiply(self, terms: _Terms, sums: BufferTensor, runs: Runs) -> None:
        """The matrix products of all points, by the register tiles of ``runs``."""
        b = self.b
        with b.loop(self.form.points) as p:
            offset, use = index(0), p * sum(count for _, count in runs)
            for rows, count in runs:
                with b.loop(count) as k:
                    self._product(terms, sums, (offset + k * rows, p), rows, use + k)
                offset, use = offset + rows * count, use + count

    def _product(
        self, terms: _Terms, sums: BufferTensor, at: tuple[Expr, Expr], rows: int, use: Expr
    ) -> None:
        """One register tile of a point's product, at (tile, point) of ``sums``.

        If ``terms`` has only part of the channels, its products are added to what is there.
        """
        tile, p = at
        acc = RegisterTile(self.b, rows, self.vectors, self.dot)
        if terms.blocks < self.blocks:
            acc.fill(lambda r, v: sums.load_raw([tile + r, p, self._vector(v)]))
        else:
            acc.zero()
        with self.b.loop(terms.blocks) as c:
            if terms.ahead is not None:
                following, block = terms.ahead
                following.fetch(block + c, use, index(0))
            with self.b.loop(self.lanes // self.depth) as i:
                acc.step(
                    lambda r: (terms.inputs, (terms.first + c, p, terms.row + tile + r, i)),
                    (terms.weights, (*terms.lead, c, p, i)),
                )
        for r in range(rows):
            for v in range(self.vectors):
                value = acc.accumulators[r][v].load_raw([acc.lane_index])
                sums.store_raw([tile + r, p, self._vector(v)], value)

    # ---- outputs -----------------------------------------------------------------------------

    def _finish(self, part: _Part, sums: BufferTensor, tiles: Any) -> None:
        with self.b.loop(tiles) as t:
            for v in range(self.vectors):
                self._outputs(part, sums, t, v)

    def _zero(self, sums: BufferTensor) -> None:
        b = self.b
        with b.grid(*sums.shape[:2]) as at:
            for v in range(self.vectors):
                zero = tirx.Broadcast(tirx.const(0, self.sums), self.lanes)
                sums.store_raw([*at, self._vector(v)], zero)

    def _outputs(self, part: _Part, sums: BufferTensor, t: Expr, v: int) -> None:
        """The outputs ``A^T m A`` of a tile, for a vector of filters, as far as in the image."""
        # Integers without sign, whose sums and products are modulo 2^32.
        wrapping = self.sums if self.sums == "float32" else "uint32"
        b, a = self.b, Arithmetic(self.b, self.lanes, wrapping)
        block = b.let(part.filters * self.vectors + v, "block")
        place, across = part.first + t, index(self.across)
        row = b.opaque(tirx.floordiv(place, across) * self.form.outputs)
        column = b.opaque(tirx.floormod(place, across) * self.form.outputs)
        extent, columns = self.form.inputs, []
        for j in range(extent):
            points = [index(i * extent + j) for i in range(extent)]
            line = [self._sum(a, sums.load_raw([t, p, self._vector(v)])) for p in points]
            columns.append(self.form.output(a, line))
        bias = None if self.bias is None else a.let(self.bias.load_raw([block, self._ramp()]))
        whole = as_int(self.out_blocks) == self.filter_blocks * self.vectors
        with b.when(None if whole else block < index(self.out_blocks)):
            for i in range(self.form.outputs):
                with b.when(self._fits(row + i, self.height)):
                    values = self.form.output(a, [c[i] for c in columns])
                    for j, value in enumerate(values):
                        with b.when(self._fits(column + j, self.width)):
                            total = self._unscaled(a, value)
                            total = total if bias is None else total + bias
                            self._store((part.image, block, row + i, column + j), total)

    def _sum(self, a: Arithmetic, value: Expr) -> Expr:
        """A vector of sums in the type of ``a``, of as many bits."""
        if a.dtype != self.sums:
            value = tirx.reinterpret(f"{a.dtype}x{a.lanes}", value)
        return a.let(value)

    def _unscaled(self, a: Arithmetic, value: Expr) -> Expr:
        """What the output transform gives, without its scale."""
        form = self.form
        if form.scale == 1:
            return value
        if form.inverse != 1:
            value = a.let(value * a.number(form.inverse))
        signed = tirx.reinterpret(f"int32x{a.lanes}", value)
        shift = tirx.Broadcast(tirx.const(form.growth.bit_length() - 1, "int32"), a.lanes)
        return tirx.shift_right(signed, shift)

    def _fits(self, at: Expr, extent: Any) -> Expr | None:
        """Is row or column ``at`` in the image? None where it always is."""
        known = as_int(extent)
        return None if known is not None and known % self.form.outputs == 0 else at < index(extent)

    def _store(self, at: At, value: Expr) -> None:
        b = self.b
        held = b.local((self.lanes,), self.sums, "y")
        held.store_raw([self._ramp()], value)
        with b.lanes(self.lanes) as lane:
            self.ctx.sink((*at, lane), held.load_raw([lane]))

    def _vector(self, v: int) -> Expr:
        """The filters of the ``v``-th vector of a block."""
        return tirx.Ramp(index(v * self.lanes), index(1), self.lanes)

    def _ramp(self) -> Expr:
        return tirx.Ramp(index(0), index(1), self.lanes)
