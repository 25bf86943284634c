"""MatMulNBits for few rows of floats: weights become floats in registers, beside the products.

A vector of 32-bit words holds ``32 / bits`` weights in each lane. Shifted by ``bits``, cut and
converted they become floats, which the operands, put into the same order beforehand, are multiplied
by. Scales are those of blocks of whole lanes, so they are applied once for all weights of a word:

    y = sum over words of scale (sum over the word of x code - zero sum over the word of x)

A lane's inner sum starts from ``-zero`` times its share of the sum of ``x``.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...ir.graph import Graph, Node
from ...ir.registry import attribute
from ..generic.registry import TemplateContext
from ..tir.builder import BufferTensor, Builder, Expr
from ..tir.extents import as_int, index
from .features import CpuFeatures
from .lanes import added, filled, ramp, spread
from .prefetch import columns_ahead, prefetch

At = tuple[Expr, ...]
Sums = dict[tuple[int, int], BufferTensor]

WORD = 32
"""Bits of a word."""
_LOOK_UP = "llvm.x86.avx512.permvar.sf.512"


def words_objection(cpu: CpuFeatures, graph: Graph, node: Node) -> str | None:
    """Why the template does not take a node, or None."""
    x, _, scales, zeros, *_ = [*graph.inputs_of(node), None]
    assert x is not None and scales is not None
    if x.dtype != "float32" or scales.dtype != "float32":
        return f"the template of MatMulNBits takes float32, not {x.dtype} and {scales.dtype}"
    if zeros is not None:
        return "the template of MatMulNBits takes weights around the middle of their codes"
    bits, inner, block = (int(attribute(node, name)) for name in ("bits", "K", "block_size"))
    whole = cpu.vector_bytes * 8 // bits
    if inner % whole or (block % whole and whole % block):
        return "the template of MatMulNBits takes whole blocks that fill vectors"
    return None


class WordCodes:
    """Fields of ``bits`` bits of the words in a vector, as floats; 0 stands for ``first``."""

    def __init__(self, b: Builder, cpu: CpuFeatures, bits: int, first: int = 0) -> None:
        self.first = first
        self.bits, self.fields, self.lanes = bits, WORD // bits, cpu.vector_bytes // 4
        is_looked_up = cpu.vector_bytes == 64 and bits == 4
        self.table = b.let(self._numbers(), "table") if is_looked_up else None

    def _numbers(self) -> Expr:
        """What 16 codes stand for, one in each lane."""
        numbers = tirx.Ramp(tirx.const(self.first, "int32"), tirx.const(1, "int32"), self.lanes)
        return tirx.Cast(f"float32x{self.lanes}", numbers)

    def of(self, words: Expr, field: int) -> Expr:
        """A field of each word, as a float.

        With 64-byte vectors one instruction looks up 16 floats by the lowest four bits, which saves
        cutting the others off.
        """
        moved = words if field == 0 else tirx.shift_right(words, self._all(field * self.bits))
        if self.table is not None:
            return tirx.call_llvm_pure_intrin(f"float32x{self.lanes}", _LOOK_UP, self.table, moved)
        code = tirx.bitwise_and(moved, self._all((1 << self.bits) - 1))
        found = tirx.Cast(f"float32x{self.lanes}", code)
        return found if self.first == 0 else found + filled(self.first, self.lanes)

    def _all(self, value: int) -> Expr:
        return tirx.Broadcast(tirx.const(value, "int32"), self.lanes)


class WordProduct:
    """``x W^T + bias`` for float32 ``x`` of ``rows`` rows."""

    def __init__(self, ctx: TemplateContext, cpu: CpuFeatures, rows: Any) -> None:
        self.ctx, self.b, self.rows = ctx, ctx.b, rows
        self.columns, self.inner = int(ctx.attr("N")), int(ctx.attr("K"))
        self.bits, self.block = int(ctx.attr("bits")), int(ctx.attr("block_size"))
        self.bytes, self.lanes = cpu.vector_bytes, cpu.vector_bytes // 4
        self.fields = WORD // self.bits
        self.vectors = self.inner // (self.lanes * self.fields)
        self.blocks = max(1, self.lanes * self.fields // self.block)
        """Blocks that a vector has weights of."""
        self.wide = cpu.vector_bytes == 64
        self.codes = WordCodes(ctx.b, cpu, self.bits)
        lanes = (rows, self.vectors, self.lanes)
        self.operands = self.b.workspace((*lanes[:2], self.fields, self.lanes), "float32", "xs")
        self.starts = self.b.workspace(lanes, "float32", "starts")

    def emit(self) -> None:
        """Add the loops."""
        ctx, b = self.ctx, self.b
        x = b.view(ctx.buffered(0), (self.rows, self.vectors, self.lanes, self.fields))
        b.nest((self.rows, self.vectors), lambda at: self._order(x, at),
               4 * self.lanes * self.fields, sequential_last=True)  # fmt: skip
        weights = b.view(ctx.buffered(1), (self.columns, self.vectors, self.bytes))
        scales = b.view(ctx.buffered(2), (self.columns, self.inner // self.block))
        bias = ctx.buffered(5) if ctx.has(5) else None
        result = b.view(ctx.result(), (self.rows, self.columns))
        known = as_int(self.rows)
        # As many sums as stay in registers, twice: those of a vector, and of all before it.
        most = min(4 if self.wide else 2, 4 if known is None else known)
        together = 4 if most == 1 else 2
        while self.columns % together:
            together //= 2

        def tile(row: Expr, count: int, first: Expr) -> None:
            sums = self._sums(weights, scales, (row, count), (first, together))
            for (r, n), total in sums.items():
                value = added(total, self.lanes)
                value = value if bias is None else value + bias[first + n]
                result.store((row + r, first + n), value)

        def task(at: At) -> None:
            first = b.let(at[0] * together)
            groups = b.opaque(tirx.floordiv(index(self.rows), index(most)))
            with b.loop(groups) as g:
                tile(b.opaque(g * most), most, first)
            with b.loop(index(self.rows) - groups * most) as rest:
                tile(b.opaque(groups * most + rest), 1, first)

        work = together * self.inner * (known or most)
        b.nest((self.columns // together,), task, work, sequential_last=True)

    def _order(self, x: BufferTensor, at: At) -> None:
        """Put a vector's operands into the order of the weights, and sum up those of each lane."""
        b = self.b
        with b.loop(self.lanes) as lane:
            values = [b.let(x[(*at, lane, index(f))]) for f in range(self.fields)]
            for f, value in enumerate(values):
                self.operands.store((*at, index(f), lane), value)
            total = sum(values[1:], values[0])
            self.starts.store((*at, lane), total * tirx.const(-(1 << (self.bits - 1)), "float32"))

    def _sums(
        self, weights: BufferTensor, scales: BufferTensor, rows: tuple[Expr, int],
        columns: tuple[Expr, int],
    ) -> Sums:  # fmt: skip
        """The products of some rows and columns, each (first, how many), in vectors of lanes."""
        b, lanes = self.b, ramp(self.lanes)
        pairs = [(r, n) for r in range(rows[1]) for n in range(columns[1])]
        totals = {pair: b.local((self.lanes,), "float32", "total") for pair in pairs}
        for total in totals.values():
            total.store_raw([lanes], filled(0.0, self.lanes))
        ahead = columns_ahead(columns[1], self.inner * self.bits // 8)
        with b.loop(self.vectors) as v:
            starts = [b.let(self.starts.load_raw([rows[0] + r, v, lanes])) for r in range(rows[1])]
            words = [b.let(self._words(weights, columns[0] + n, v)) for n in range(columns[1])]
            for n in range(columns[1]):
                prefetch(b, weights, (columns[0] + n + ahead, v, index(0)))
            parts = {(r, n): starts[r] for r, n in pairs}
            for f in range(self.fields):
                xs = [
                    b.let(self.operands.load_raw([rows[0] + r, v, index(f), lanes]))
                    for r in range(rows[1])
                ]
                for n, word in enumerate(words):
                    codes = b.let(self.codes.of(word, f))
                    for r, x in enumerate(xs):
                        parts[r, n] = b.let(parts[r, n] + x * codes)
            for n in range(columns[1]):
                scale = b.let(self._scale(scales, columns[0] + n, v))
                for r in range(rows[1]):
                    total = totals[r, n]
                    total.store_raw([lanes], total.load_raw([lanes]) + parts[r, n] * scale)
        return totals

    def _words(self, weights: BufferTensor, column: Expr, vector: Expr) -> Expr:
        packed = weights.load_raw([column, vector, ramp(self.bytes)])
        return tirx.reinterpret(f"int32x{self.lanes}", packed)

    def _scale(self, scales: BufferTensor, column: Expr, vector: Expr) -> Expr:
        if self.blocks == 1:
            block = tirx.floordiv(vector * (self.lanes * self.fields), index(self.block))
            return tirx.Broadcast(scales[column, block], self.lanes)
        shaped = self.b.view(scales, (self.columns, self.vectors, self.blocks))
        return spread(shaped, (column, vector), self.blocks, self.lanes)


__all__ = ["WORD", "WordCodes", "WordProduct", "words_objection"]
