"""Winograd convolution F(4x4, 3x3): 36 multiplications for 16 outputs instead of 144.

``Y = A^T [(G g G^T) . (B^T d B)] A`` for tiles of 4x4 outputs and the 6x6 inputs under them, with
the interpolation points 0, 1, -1, 2, -2 and infinity (Lavin and Gray, "Fast Algorithms for
Convolutional Neural Networks", 2016). The sums over channels become 36 matrix products. Weights
are transformed at run time, a block of filters at a time, while it fits the cache: stored in that
form they would take four times the memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...ir.windows import ConvShape
from ..generic.registry import TemplateContext
from ..tir.builder import BufferTensor, as_int, index, product
from ..tir.numeric import cast
from .dot import FloatDot
from .features import CpuFeatures
from .image import Geometry, Image
from .microkernel import RegisterTile
from .packing import tiles_of
from .tiling import accumulator_budget, cover, tile_cost

Expr = Any
Vectors = list[Expr]

_OUT = 4
_IN = 6
_POINTS = _IN * _IN
_TRANSFORM = 220
"""Vector operations of an input or output transform of one tile and one vector of channels."""
_WEIGHTS = 270
"""Vector operations of the transform of one input channel's weights for a vector of filters."""
_MARGIN = 1.2
_GROUP = 64
"""Tiles whose products are kept until their output transform."""
_TASKS = 8
_EXCHANGE = 2
"""How many times more work than other loops this one needs before a second core helps."""
_GUESS = 28
_NEAR = 640 * 1024
"""Bytes that stay in the second cache beside other things."""
_FAR = 16 * 1024 * 1024
"""Bytes that are not expected to stay in any cache."""


def winograd_fits(shape: ConvShape, lanes: int) -> bool:
    """Can a convolution be computed in this form? Its channels must lie in blocks of ``lanes``."""
    if shape.integer or shape.group != 1 or shape.channels < lanes or len(shape.image) != 2:
        return False
    return (shape.kernel, shape.strides, shape.dilations) == ((3, 3), (1, 1), (1, 1))


def winograd_tiles(shape: ConvShape, lanes: int) -> int | None:
    """The tiles of an image where this form of its convolution pays; None where it does not.

    It pays for dense 3x3 windows that move by single steps, if a direct convolution takes clearly
    more vector operations. Extents that are not known count as :data:`_GUESS`.
    """
    if not winograd_fits(shape, lanes):
        return None
    height, width = _extents(shape)
    blocks, vectors = -(-shape.channels // lanes), -(-shape.filters // lanes)
    depth, tiles = blocks * lanes, image_tiles(shape)
    direct = height * width * 9 * depth * vectors
    products = tiles * _POINTS * depth * vectors
    transforms = tiles * (blocks + vectors) * _TRANSFORM + depth * vectors * _WEIGHTS
    return tiles if direct > _MARGIN * (products + transforms) else None


def image_tiles(shape: ConvShape) -> int:
    """How many tiles cover an image."""
    height, width = _extents(shape)
    return int(tiles_of(height, _OUT) * tiles_of(width, _OUT))


def _extents(shape: ConvShape) -> tuple[int, ...]:
    return tuple(_GUESS if d is None else d for d in shape.image)


@dataclass(frozen=True)
class _Part:
    """Some tiles of an image and a block of filters.

    ``row`` counts the first tile's row of inputs, ``place`` the tile in the image; ``lead`` are the
    leading indices of the block's weights.
    """

    image: Expr
    filters: Expr
    row: Expr
    place: Expr
    lead: tuple[Expr, ...]


class Winograd:
    """One convolution; ``weight`` is packed as for ``ConvBlocked``."""

    def __init__(
        self, ctx: TemplateContext, cpu: CpuFeatures, image: Image, g: Geometry,
        weight: BufferTensor,
    ) -> None:  # fmt: skip
        self.ctx = ctx
        self.b = ctx.b
        self.image = image
        self.weight = weight
        self.top, self.left = ctx.b.dim(g.begin[0]), ctx.b.dim(g.begin[1])
        self.batch, self.out_blocks, self.height, self.width, block = ctx.out_shape()
        self.down, self.across = tiles_of(self.height, _OUT), tiles_of(self.width, _OUT)
        self.tiles = product((self.down, self.across))
        self.filter_blocks, self.blocks = int(weight.shape[1]), int(weight.shape[2])
        self.lanes = int(block)
        self.tile_width = int(weight.shape[-1])
        self.vectors = self.tile_width // self.lanes
        self.limit = accumulator_budget(cpu, self.vectors)
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
        """Is it better to keep the inputs of one row of tiles near than those of one filter block?

        The one way reads all weights again for every row, the other all inputs for every block.
        Where all weights stay near, rows share less between cores.
        """
        across = as_int(self.across) or _GUESS // _OUT
        down = as_int(self.down) or _GUESS // _OUT
        unknown = as_int(self.tiles) is None
        weights = _POINTS * self.blocks * self.lanes * self.filter_blocks * self.tile_width * 4
        if weights <= _NEAR:
            return True
        inputs = _POINTS * self.blocks * self.lanes * down * across * 4
        rows = weights * down
        filters = inputs * (1 + self.filter_blocks) * (3.0 if inputs > _FAR or unknown else 1.0)
        return (across >= self.limit or unknown) and rows < filters

    def _by_rows(self) -> None:
        """All weights first; then row by row of tiles, with its inputs in the cache."""
        b = self.b
        shape = (self.filter_blocks, _POINTS, self.blocks, self.lanes, self.tile_width)
        weights = b.workspace(shape, "float32", "weights")

        def transform(at: tuple[Expr, ...]) -> None:
            with b.loop(self.lanes) as i, b.loop(self.vectors) as v:
                self._transform_weights(weights, (at[0],), at[0], at[1], i, v)

        tasks = self.filter_blocks * self.blocks
        b.nest(
            (self.filter_blocks, self.blocks), transform, self._cost(tasks), sequential_last=True
        )

        def row(at: tuple[Expr, ...]) -> None:
            n, down = at
            shape = (_POINTS, self.blocks, self._capacity(self.across), self.lanes)
            inputs = b.workspace(shape, "float32", "inputs")
            with b.loop(self.blocks) as block:
                self._input_row(n, block, down, inputs, index(0))
            with b.loop(self.filter_blocks) as f:
                start: Any = 0
                for size, count in self._runs(self.across):
                    with b.loop(count) as g:
                        here = b.opaque(index(start + g * size))
                        part = _Part(n, f, here, down * self.across + here, (f,))
                        self._group(part, inputs, weights, size, self.across)
                    start = start + size * count

        cost = self._cost(as_int(self.down) or _GUESS // _OUT)
        b.nest((self.batch, self.down), row, cost, sequential_last=True)

    def _by_filters(self) -> None:
        """All inputs of an image first; then block by block of filters, its weights in the cache.

        Where there are few blocks, each is shared out by tiles.
        """
        b = self.b
        with b.loop(self.batch) as n:
            shape = (_POINTS, self.blocks, self._capacity(self.tiles), self.lanes)
            inputs = b.workspace(shape, "float32", "inputs")

            def row(at: tuple[Expr, ...]) -> None:
                self._input_row(n, at[0], at[1], inputs, at[1] * self.across)

            tasks = self.blocks * (as_int(self.down) or _GUESS // _OUT)
            b.nest((self.blocks, self.down), row, self._cost(tasks), sequential_last=True)
            runs = self._runs(self.tiles)
            shares = max(1, _TASKS // self.filter_blocks)
            if as_int(self.tiles) is not None:
                shares = min(shares, sum(count for _, count in runs))
            b.nest(
                (self.filter_blocks, shares),
                lambda at: self._share(n, at, inputs, runs, shares),
                self._cost(self.filter_blocks * shares), sequential_last=True,
            )  # fmt: skip

    def _cost(self, tasks: int) -> int:
        """The cost of one of so many tasks that share an image's work.

        Every loop counts as the whole kernel: what one core has transformed the other reads, so
        that small kernels gain nothing from a second core even where one of their loops would.
        """
        tiles = as_int(self.tiles) or _GROUP
        depth, filters = self.blocks * self.lanes, self.filter_blocks * self.tile_width
        products = 2 * _POINTS * tiles * depth * filters
        transforms = _WEIGHTS * depth * filters + _TRANSFORM * tiles * (depth + filters)
        return tile_cost((products + transforms) // (tasks * _EXCHANGE))

    def _share(
        self, n: Expr, at: tuple[Expr, ...], inputs: BufferTensor, runs: list[tuple[int, Any]],
        shares: int,
    ) -> None:  # fmt: skip
        b = self.b
        f, share = at
        shape = (_POINTS, self.blocks, self.lanes, self.tile_width)
        weights = b.workspace(shape, "float32", "weights")
        with b.loop(self.blocks) as c, b.loop(self.lanes) as i, b.loop(self.vectors) as v:
            self._transform_weights(weights, (), f, c, i, v)
        start: Any = 0
        for size, count in runs:
            low = b.let(tirx.floordiv(share * count, index(shares)), "low")
            high = b.let(tirx.floordiv((share + 1) * count, index(shares)), "high")
            with b.loop(high - low) as g:
                first = b.opaque(start + (low + g) * size)
                self._group(_Part(n, f, first, first, ()), inputs, weights, size, self.tiles)
            start = start + size * count

    def _capacity(self, rows: Any) -> Any:
        """Rows of products: where their number is not known they fill whole register tiles."""
        return rows if as_int(rows) is not None else tiles_of(rows, self.limit) * self.limit

    def _runs(self, tiles: Any) -> list[tuple[int, Any]]:
        """Groups of tiles as (size, count)."""
        size = max(1, _GROUP // self.limit) * self.limit
        known = as_int(tiles)
        return [(size, tiles_of(tiles, size))] if known is None else cover(known, size)

    # ---- inputs ------------------------------------------------------------------------------

    def _input_row(
        self, n: Expr, block: Expr, down: Expr, inputs: BufferTensor, base: Expr
    ) -> None:
        """Transform the six image rows under a row of tiles: first down, then across."""
        b = self.b
        columns = self.across * _OUT + 2
        rows = b.workspace((_IN, columns, self.lanes), "float32", "rows")
        zero = tirx.Broadcast(tirx.const(0.0, "float32"), self.lanes)
        ends = self.image.width + self.left
        for start, stop in ((0, self.left), (ends, columns)):
            with b.loop(stop - start) as w:
                for i in range(_IN):
                    rows.store_raw([index(i), w + start, self._ramp()], zero)
        first = b.let(down * _OUT - self.top, "row")
        height = index(self.image.height)
        inside = tirx.all(first >= 0, first + _IN <= height)
        for whole in (True, False):
            with b.when(inside if whole else tirx.Not(inside)), b.loop(self.image.width) as w:
                values = [self._pixel(n, block, first + i, w, whole) for i in range(_IN)]
                for i, v in enumerate(self._input(values)):
                    rows.store_raw([index(i), w + self.left, self._ramp()], v)
        with b.loop(self.across) as t:
            tile = b.opaque(base + t)
            for i in range(_IN):
                line = [
                    self._let(rows.load_raw([index(i), t * _OUT + j, self._ramp()]))
                    for j in range(_IN)
                ]
                for j, v in enumerate(self._input(line)):
                    inputs.store_raw([index(i * _IN + j), block, tile, self._ramp()], v)

    def _pixel(self, n: Expr, block: Expr, row: Expr, column: Expr, whole: bool) -> Expr:
        """A vector of channels; zero outside of the image."""
        x, height = self.image.tensor, index(self.image.height)
        if whole:
            return self._let(x.load_raw([n, block, row, column, self._ramp()]))
        clamped = tirx.max(index(0), tirx.min(row, height - 1))
        inside = tirx.all(row >= 0, row < height)
        factor = tirx.Select(inside, tirx.const(1.0, "float32"), tirx.const(0.0, "float32"))
        value = x.load_raw([n, block, clamped, column, self._ramp()])
        return self._let(value * tirx.Broadcast(factor, self.lanes))

    # ---- products ----------------------------------------------------------------------------

    def _transform_weights(
        self, weights: BufferTensor, lead: tuple[Expr, ...], f: Expr, c: Expr, i: Expr, v: Expr
    ) -> None:
        """``G g G^T`` for one input channel and a vector of filters."""
        lanes = tirx.Ramp(v * self.lanes, index(1), self.lanes)

        def tap(kh: int, kw: int) -> Expr:
            at = [index(0), f, c, index(kh), index(kw), i, lanes]
            return self._let(cast(self.weight.load_raw(at), f"float32x{self.lanes}"))

        columns = [self._weight([tap(kh, kw) for kh in range(3)]) for kw in range(3)]
        for row in range(_IN):
            for j, value in enumerate(self._weight([column[row] for column in columns])):
                weights.store_raw([*lead, index(row * _IN + j), c, i, lanes], value)

    def _group(
        self, part: _Part, inputs: BufferTensor, weights: BufferTensor, size: int, end: Any
    ) -> None:
        """The products of ``size`` tiles, or of those before row ``end``, then their outputs."""
        b = self.b
        sums = b.workspace((_POINTS, size, self.tile_width), "float32", "sums")
        here: Any = size
        parts: list[tuple[int, Any]] = cover(size, self.limit)
        if as_int(end) is None:
            here = b.opaque(tirx.min(index(size), end - part.row))
            parts = [(self.limit, tiles_of(here, self.limit))]
        with b.loop(_POINTS) as p:
            offset: Any = index(0)
            for rows, count in parts:
                with b.loop(count) as k:
                    self._multiply(part, inputs, weights, sums, p, offset + k * rows, rows)
                offset = offset + rows * count
        with b.loop(here) as t:
            for v in range(self.vectors):
                self._outputs(part, sums, t, v)

    def _multiply(
        self, part: _Part, inputs: BufferTensor, weights: BufferTensor, sums: BufferTensor, p: Expr,
        offset: Expr, rows: int,
    ) -> None:  # fmt: skip
        acc = RegisterTile(self.b, rows, self.vectors, FloatDot(self.lanes))
        acc.zero()
        acc.reduce(
            (self.blocks, self.lanes),
            lambda r, k: (inputs, (p, k[0], part.row + offset + r, k[1])),
            lambda k: (weights, (*part.lead, p, k[0], k[1])),
        )
        for r in range(rows):
            for v in range(self.vectors):
                value = acc.accumulators[r][v].load_raw([acc.lane_index])
                lanes = tirx.Ramp(index(v * self.lanes), index(1), self.lanes)
                sums.store_raw([p, offset + r, lanes], value)

    # ---- outputs -----------------------------------------------------------------------------

    def _outputs(self, part: _Part, sums: BufferTensor, t: Expr, v: int) -> None:
        """``A^T m A`` of one tile and vector of filters; drops what is outside of the image."""
        b = self.b
        block = b.let(part.filters * self.vectors + v, "block")
        place, across = part.place + t, index(self.across)
        row = b.opaque(tirx.floordiv(place, across) * _OUT)
        column = b.opaque(tirx.floormod(place, across) * _OUT)
        lanes = tirx.Ramp(index(v * self.lanes), index(1), self.lanes)
        columns = []
        for j in range(_IN):
            line = [self._let(sums.load_raw([index(i * _IN + j), t, lanes])) for i in range(_IN)]
            columns.append(self._output(line))
        bias = None if self.bias is None else self._let(self.bias.load_raw([block, self._ramp()]))
        whole = as_int(self.out_blocks) == self.filter_blocks * self.vectors
        with b.when(None if whole else block < index(self.out_blocks)):
            for i in range(_OUT):
                with b.when(self._fits(row + i, self.height)):
                    values = self._output([c[i] for c in columns])
                    for j, value in enumerate(values):
                        with b.when(self._fits(column + j, self.width)):
                            total = value if bias is None else value + bias
                            self._store((part.image, block, row + i, column + j), total)

    def _fits(self, at: Expr, extent: Any) -> Expr | None:
        known = as_int(extent)
        return None if known is not None and known % _OUT == 0 else at < index(extent)

    def _store(self, at: tuple[Expr, ...], value: Expr) -> None:
        b = self.b
        held = b.local((self.lanes,), "float32", "y")
        held.store_raw([self._ramp()], value)
        with b.lanes(self.lanes) as lane:
            self.ctx.sink((*at, lane), held.load_raw([lane]))

    # ---- one-dimensional transforms ----------------------------------------------------------

    def _input(self, d: Vectors) -> Vectors:
        """``B^T d``"""
        let = self._let
        even, odd = let(d[4] - self._c(4) * d[2]), let(d[3] - self._c(4) * d[1])
        near, far = let(d[4] - d[2]), let((d[3] - d[1]) * self._c(2))
        return [let(v) for v in (
            self._c(4) * d[0] - self._c(5) * d[2] + d[4],
            even + odd, even - odd, near + far, near - far,
            self._c(4) * d[1] - self._c(5) * d[3] + d[5],
        )]  # fmt: skip

    def _weight(self, g: Vectors) -> Vectors:
        """``G g``"""
        let = self._let
        outer, inner = let((g[0] + g[2]) * self._c(-1 / 6)), let(g[1] * self._c(-1 / 6))
        wide = let(g[0] * self._c(1 / 24) + g[2] * self._c(1 / 6))
        narrow = let(g[1] * self._c(1 / 12))
        return [let(v) for v in (
            g[0] * self._c(1 / 4), outer + inner, outer - inner, wide + narrow, wide - narrow, g[2],
        )]  # fmt: skip

    def _output(self, m: Vectors) -> Vectors:
        """``A^T m``"""
        let = self._let
        one, two = let(m[1] + m[2]), let(m[3] + m[4])
        first, second = let(m[1] - m[2]), let(m[3] - m[4])
        return [let(v) for v in (
            m[0] + one + two, first + self._c(2) * second, one + self._c(4) * two,
            first + self._c(8) * second + m[5],
        )]  # fmt: skip

    def _c(self, value: float) -> Expr:
        return tirx.Broadcast(tirx.const(value, "float32"), self.lanes)

    def _let(self, value: Expr) -> Expr:
        return self.b.let(value, "t")

    def _ramp(self) -> Expr:
        return tirx.Ramp(index(0), index(1), self.lanes)
