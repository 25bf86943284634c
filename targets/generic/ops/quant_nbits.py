"""Lowering of MatMulNBits: weights of a few bits become floats in registers as they are used.

A column's weights are bytes, each of which holds ``8 / bits`` neighbours along K. A vector of bytes
gives as many vectors of weights: with 4 bits the even ones, then the odd ones. So the operands are
put into this order first, and the lanes of a sum are added up at the end. Where many rows use them,
the weights of a few columns are unpacked once, into memory that stays in the cache.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.extents import as_int, index, product
from ...tir.numeric import cast
from ..registry import LowerContext, lowering

At = tuple[Expr, ...]

_MOST_ROWS = 4
"""Rows of the result that weights are unpacked for in registers, where their sums stay. With
64-byte vectors there are twice as many registers, and so rows."""
_COLUMNS = 4
"""Columns that are computed together for a single row, half as many for several rows. A sum waits
four cycles for the one before it, so several must be under way; and several share operands."""
_UNPACKED = 8
"""Columns whose weights are unpacked into memory at once, where many rows use them."""


@lowering("com.microsoft.MatMulNBits")
def lower_matmul_nbits(c: LowerContext) -> TensorExpr:
    """MatMulNBits-1: ``A @ W^T + bias``, W (N, K) in blocks along K, each with a scale."""
    product_of = _Product(c)
    if not c.b.loops.task_memory or product_of.is_short is True:
        product_of.by_registers()
    elif product_of.is_short is False:
        product_of.by_memory()
    else:
        with c.b.when(product_of.is_short):
            product_of.by_registers()
        with c.b.otherwise():
            product_of.by_memory()
    return product_of.out


class _Product:
    """``A @ W^T + bias`` for few rows, or for rows enough to unpack weights into memory for."""

    def __init__(self, c: LowerContext) -> None:
        self.b, self.out = c.b, c.result()
        self.rows, self.columns = product(self.out.shape[:-1]), int(c.attr("N"))
        self.weights = _Weights(c)
        x = c.b.view(c.buffered(0), (self.rows, self.weights.inner))
        self.operands = self.weights.operands(x)
        self.result = c.b.view(self.out, (self.rows, self.columns))
        self.bias = c.buffered(5) if c.has(5) else None
        self.wide = c.b.loops.vector_bytes == 64
        self.known = as_int(self.rows)
        self.many = 2 * _MOST_ROWS if self.wide else _MOST_ROWS
        known = self.known
        self.is_short = index(self.rows) <= self.many if known is None else known <= self.many

    def by_registers(self) -> None:
        """Weights become floats in registers, for a few rows at once."""
        b, weights = self.b, self.weights
        many = self.many
        most = max(1, many if self.known is None else min(self.known, many))
        groups = b.opaque(tirx.floordiv(index(self.rows), index(most)))
        together = self._columns(_COLUMNS if most == 1 else _COLUMNS // 2)

        def tile(row: Expr, count: int, first: Expr) -> None:
            self._put(row, first, weights.sums(self.operands, (row, count), (first, together)))

        def body(at: At) -> None:
            first = b.let(at[0] * together)
            with b.loop(groups) as g:
                tile(b.opaque(g * most), most, first)
            with b.loop(index(self.rows) - groups * most) as rest:
                tile(b.opaque(groups * most + rest), 1, first)

        self._nest(body, together, many)

    def by_memory(self) -> None:
        """Weights of some columns become floats in memory, for all rows. The last rows' sums are
        computed twice where the number of rows is no multiple of a tile's.
        """
        b, weights = self.b, self.weights
        most = 6 if self.wide else 2
        together = self._columns(_UNPACKED)
        width = min(together, _COLUMNS)
        vectors = weights.blocks * weights.chunks * weights.fields
        operands = b.view(self.operands, (self.rows, vectors, weights.lanes))
        groups = tirx.floordiv(index(self.rows) + (most - 1), index(most))

        def body(at: At) -> None:
            first = b.let(at[0] * together)
            unpacked = b.workspace((together, vectors, weights.lanes), "float32", "weights")
            weights.unpack(unpacked, first)
            with b.loop(groups) as g:
                row = b.opaque(tirx.min(g * most, index(self.rows) - most))
                for n in range(0, together, width):
                    sums = weights.products(operands, unpacked, (row, most), (n, width))
                    self._put(row, first + n, sums)

        self._nest(body, together, most)

    def _columns(self, most: int) -> int:
        """How many columns are a task: ``most``, or halves of it until they divide all."""
        while self.columns % most:
            most //= 2
        return most

    def _nest(self, body: Callable[[At], None], together: int, rows: int) -> None:
        work = together * self.weights.inner * (rows if self.known is None else self.known)
        self.b.nest((self.columns // together,), body, work, sequential_last=True)

    def _put(self, row: Expr, first: Expr, sums: dict[tuple[int, int], Expr]) -> None:
        for (r, n), total in sums.items():
            value = total if self.bias is None else total + self.bias[first + n]
            self.result.store((row + r, first + n), value)


class _Weights:
    """W (N, K): ``bits`` each, in blocks of ``block`` along K, which consist of ``chunks`` vectors
    of bytes.
    """

    def __init__(self, c: LowerContext) -> None:
        self.b = b = c.b
        self.columns, self.inner = int(c.attr("N")), int(c.attr("K"))
        self.bits, self.block = int(c.attr("bits")), int(c.attr("block_size"))
        self.fields = 8 // self.bits
        self.blocks = -(-self.inner // self.block)
        width = self.block // self.fields
        self.lanes = min(width, b.loops.vector_bytes // 4 or 1)
        self.chunks = width // self.lanes
        shape = (self.columns, self.blocks, self.chunks, self.lanes)
        self.packed = b.view(c.buffered(1), shape)
        self.scales = b.view(c.buffered(2), (self.columns, self.blocks))
        self.zero = _zero_points(c, self.columns, self.blocks, self.bits)

    def operands(self, x: BufferTensor) -> BufferTensor:
        """``x`` ``[rows, K]`` as ``[rows, blocks, chunks, fields, lanes]``, the order of the
        weights, with zeros beyond K.
        """
        b = self.b
        shape = (x.shape[0], self.blocks, self.chunks, self.fields, self.lanes)
        out = b.workspace(shape, "float32", "operands")

        def element(at: At) -> None:
            row, block, chunk, field, lane = at
            k = block * self.block + (chunk * self.lanes + lane) * self.fields + field
            known = tirx.min(k, index(self.inner - 1))
            value = cast(x[row, known], "float32")
            whole = self.inner % self.block == 0
            out.store(at, value if whole else tirx.Select(k < self.inner, value, _float(0)))

        b.nest(shape, element, 2)
        return out

    def sums(
        self, x: BufferTensor, rows: tuple[Expr, int], columns: tuple[Expr, int]
    ) -> dict[tuple[int, int], Expr]:
        """The products of some rows of the operands and some columns, each (first, how many), by
        the numbers of row and column.
        """
        b, (row, _), (column, _) = self.b, rows, columns
        sums = self._zeros(rows[1], columns[1])
        with b.loop(self.blocks) as block:
            factors = [self._factors(column + n, block) for n in range(columns[1])]
            with b.loop(self.chunks) as chunk:
                codes = [self._codes((column + n, block, chunk)) for n in range(columns[1])]
                for field in range(self.fields):
                    known = zip(codes, factors, strict=True)
                    weights = [self._weights(c, field, *f) for c, f in known]
                    self._add(sums, x, (row, block, chunk, index(field)), weights)
        return {pair: self._total(s) for pair, s in sums.items()}

    def products(
        self, x: BufferTensor, w: BufferTensor, rows: tuple[Expr, int], columns: tuple[int, int]
    ) -> dict[tuple[int, int], Expr]:
        """:meth:`sums` with unpacked weights and operands, ``[..., vectors, lanes]`` both."""
        b, (row, _), (first, count) = self.b, rows, columns
        sums = self._zeros(rows[1], count)
        ramp = _lanes_from(0, self.lanes)
        with b.loop(w.shape[1]) as i:
            weights = [b.let(w.load_raw([index(first + n), i, ramp]), "w") for n in range(count)]
            self._add(sums, x, (row, i), weights)
        return {pair: self._total(s) for pair, s in sums.items()}

    def unpack(self, out: BufferTensor, column: Expr) -> None:
        """Store columns from ``column`` on as floats: ``[columns, vectors, lanes]``."""
        b, ramp = self.b, _lanes_from(0, self.lanes)
        with b.loop(out.shape[0]) as n, b.loop(self.blocks) as block:
            factors = self._factors(column + n, block)
            with b.loop(self.chunks) as chunk:
                codes = self._codes((column + n, block, chunk))
                first = (block * self.chunks + chunk) * self.fields
                for field in range(self.fields):
                    vector = self._weights(codes, field, *factors)
                    out.store_raw([n, first + field, ramp], vector)

    def _zeros(self, rows: int, columns: int) -> dict[tuple[int, int], BufferTensor]:
        pairs = [(r, n) for r in range(rows) for n in range(columns)]
        sums = {pair: self.b.local((self.lanes,), "float32", "sum") for pair in pairs}
        for s in sums.values():
            s.store_raw([_lanes_from(0, self.lanes)], _all(_float(0), self.lanes))
        return sums

    def _add(
        self, sums: dict[tuple[int, int], BufferTensor], x: BufferTensor, at: At,
        weights: list[Expr],
    ) -> None:  # fmt: skip
        """Add the products of a vector of each row, the first one at ``at``, and of each column."""
        row, *place = at
        ramp = _lanes_from(0, self.lanes)
        for r in sorted({r for r, _ in sums}):
            v = self.b.let(x.load_raw([row + r, *place, ramp]), "x")
            for n, w in enumerate(weights):
                s = sums[r, n]
                s.store_raw([ramp], s.load_raw([ramp]) + v * w)

    def _factors(self, column: Expr, block: Expr) -> tuple[Expr, Expr]:
        """The scale of a block, and the zero point times the scale."""
        scale = self.b.let(cast(self.scales[column, block], "float32"))
        return scale, self.b.let(self.zero(column, block) * scale)

    def _codes(self, at: At) -> Expr:
        """A vector of bytes, widened to int32."""
        ramp = _lanes_from(0, self.lanes)
        return self.b.let(cast(self.packed.load_raw([*at, ramp]), _kind("int32", self.lanes)))

    def _weights(self, codes: Expr, field: int, scale: Expr, shift: Expr) -> Expr:
        """``code * scale - shift`` of a field, a vector."""
        lanes = self.lanes
        code = cast(_field(codes, field * self.bits, self.bits, lanes), _kind("float32", lanes))
        return self.b.let(code * _all(scale, lanes) - _all(shift, lanes), "w")

    def _total(self, vector: BufferTensor) -> Expr:
        """The sum of all lanes, by halves."""
        half = self.lanes // 2
        while half:
            low, high = (_lanes_from(i, half) for i in (0, half))
            vector.store_raw([low], vector.load_raw([low]) + vector.load_raw([high]))
            half //= 2
        return vector[(index(0),)]


def _lanes_from(first: int, count: int) -> Expr:
    return index(first) if count == 1 else tirx.Ramp(index(first), index(1), count)


def _all(value: Expr, lanes: int) -> Expr:
    return value if lanes == 1 else tirx.Broadcast(value, lanes)


def _kind(name: str, lanes: int) -> str:
    return name if lanes == 1 else f"{name}x{lanes}"


def _float(value: float) -> Expr:
    return tirx.const(value, "float32")


def _field(wide: Expr, first: Any, bits: int, lanes: int = 1) -> Expr:
    """``bits`` bits of bytes that were widened to int32, from bit ``first`` on."""

    def number(value: Any) -> Expr:
        return _all(tirx.const(value, "int32") if isinstance(value, int) else value, lanes)

    shifted = wide if isinstance(first, int) and first == 0 else wide >> number(first)
    if isinstance(first, int) and first + bits == 8:
        return shifted
    return shifted & number((1 << bits) - 1)


def _zero_points(
    c: LowerContext, columns: int, blocks: int, bits: int
) -> Callable[[Expr, Expr], Expr]:
    """The zero point of block ``group`` of row ``n`` as float32: given, packed, or the middle."""
    if not c.has(3):
        middle = _float(1 << (bits - 1))
        return lambda _n, _group: middle
    given = c.buffered(3)
    if given.dtype != "uint8":
        unpacked = c.b.view(given, (columns, blocks))
        return lambda n, group: cast(unpacked[n, group], "float32")
    packed, each = c.b.view(given, (columns, -(-blocks * bits // 8))), 8 // bits

    def zero(n: Expr, group: Expr) -> Expr:
        byte = cast(packed[n, tirx.floordiv(group, index(each))], "int32")
        first = cast(tirx.floormod(group, index(each)) * bits, "int32")
        return cast(_field(byte, first, bits), "float32")

    return zero
