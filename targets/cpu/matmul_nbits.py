"""MatMulNBits: for few rows by dot products of bytes where the model allows it, accuracy_level 4,
and else by floats (:mod:`.matmul_words`); for many rows by panels of floats
(:mod:`.matmul_panels`).

A vector of bytes holds the weights of some blocks, two of 4 bits in each byte. The even ones and
the odd ones are multiplied by the activations, which are quantized for each block b of a row:

    q = round(x / s), s = max |x| / 127 over b
    y = sum over b of w_scale s (sum over b of code q - zero sum over b of q)

The inner sums are exact. A lane's sum starts from ``-zero`` times its share of the sum of q.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ...ir.graph import Graph, Node
from ...ir.registry import attribute
from ..generic.ops.quant_nbits import lower_matmul_nbits
from ..generic.registry import Details, Template, TemplateContext
from ..tir.builder import BufferTensor, Expr
from ..tir.extents import as_int, index, product, static_product
from .dot import dot_of
from .features import CpuFeatures
from .lanes import added, filled, ramp, spread
from .matmul_panels import PanelProduct, panels_objection
from .matmul_words import WordProduct, words_objection
from .prefetch import columns_ahead, prefetch

At = tuple[Expr, ...]

_FEW = 16
"""Rows up to which weights are unpacked in registers, beside the products."""
_COLUMNS = 4
"""Columns that are computed together, and share the loads of activations."""
_MIDDLE = 8


def matmul_nbits(cpu: CpuFeatures) -> Template:
    """The template for rows of float32 and weights of few bits for one CPU."""

    def template(ctx: TemplateContext) -> None:
        rows = product(ctx.out_shape()[:-1])
        kind = _ByteProduct if _bytes_objection(cpu, ctx.graph, ctx.node) is None else WordProduct
        known = as_int(rows)
        if known is not None:
            (kind if known <= _FEW else PanelProduct)(ctx, cpu, rows).emit()
            return
        with ctx.b.when(index(rows) <= _FEW):
            kind(ctx, cpu, rows).emit()
        with ctx.b.otherwise():
            if panels_objection(cpu, ctx.graph, ctx.node) is None:
                PanelProduct(ctx, cpu, rows).emit()
            else:
                lower_matmul_nbits(ctx)

    def objection(graph: Graph, node: Node) -> str | None:
        rows = static_product(node.out().shape[:-1])
        if rows == 0:
            return "it has no rows"
        if rows is not None and rows > _FEW:
            return panels_objection(cpu, graph, node)
        words = words_objection(cpu, graph, node)
        return None if words is None or _bytes_objection(cpu, graph, node) is None else words

    return Template(
        template, lambda _graph, _node: Details(f"1x{_COLUMNS}"), objection, stores=True
    )


def _bytes_objection(cpu: CpuFeatures, graph: Graph, node: Node) -> str | None:
    """Why activations cannot become bytes, or None."""
    x, _, scales, zeros, *_ = [*graph.inputs_of(node), None]
    assert x is not None and scales is not None
    if attribute(node, "accuracy_level") != 4:
        return "activations stay floats: accuracy_level 4 allows bytes"
    if cpu.dot is None or attribute(node, "bits") != 4 or zeros is not None:
        return "sums of bytes take weights of 4 bits around 8"
    if x.dtype != "float32" or scales.dtype != "float32":
        return f"float32 becomes bytes, not {x.dtype} and {scales.dtype}"
    inner, block = (int(attribute(node, name)) for name in ("K", "block_size"))
    if block % 32 or 2 * cpu.vector_bytes % block or inner % (2 * cpu.vector_bytes):
        return "blocks do not fill vectors"
    return None


class _ByteProduct:
    """One product: activations are quantized first, then a task computes a few columns."""

    def __init__(self, ctx: TemplateContext, cpu: CpuFeatures, rows: Any) -> None:
        self.ctx, self.b, self.rows = ctx, ctx.b, rows
        self.columns, self.inner = int(ctx.attr("N")), int(ctx.attr("K"))
        self.block, self.bytes = int(ctx.attr("block_size")), cpu.vector_bytes
        self.lanes = self.bytes // 4
        self.vectors = self.inner // 2 // self.bytes
        self.blocks = 2 * self.bytes // self.block
        self.dot = dot_of(cpu, "uint8", 4, self.lanes)
        lanes = (rows, self.vectors, self.lanes)
        self.codes = self.b.workspace((rows, self.vectors, 2, self.bytes), "int8", "codes")
        self.starts = self.b.workspace(lanes, "int32", "starts")
        self.factors = self.b.workspace(lanes, "float32", "factors")

    def emit(self) -> None:
        ctx, b = self.ctx, self.b
        x = b.view(ctx.buffered(0), (self.rows, self.vectors, self.blocks, self.block))
        b.nest((self.rows, self.vectors, self.blocks), lambda at: self._quantize(x, at),
               8 * self.block, sequential_last=True)  # fmt: skip
        weights = b.view(ctx.buffered(1), (self.columns, self.vectors, self.bytes))
        scales = b.view(ctx.buffered(2), (self.columns, self.vectors, self.blocks))
        bias = ctx.buffered(5) if ctx.has(5) else None
        result = b.view(ctx.result(), (self.rows, self.columns))
        together = _COLUMNS
        while self.columns % together:
            together //= 2

        def task(at: At) -> None:
            first = b.let(at[0] * together)
            with b.loop(self.rows) as row:
                sums = self._sums(weights, scales, row, first, together)
                for n, total in enumerate(sums):
                    value = total if bias is None else total + bias[first + n]
                    result.store((row, first + n), value)

        b.nest((self.columns // together,), task, together * self.inner, sequential_last=True)

    def _quantize(self, x: BufferTensor, at: At) -> None:
        """Quantize a block: its codes, even ones before odd ones, and what each lane needs."""
        b, (row, vector, block) = self.b, at
        largest = b.scalar("int32", 0)  # floats that are not negative are ordered like their bits
        with b.loop(self.block) as i:
            magnitude = tirx.bitwise_and(
                tirx.reinterpret("int32", x[(*at, i)]), tirx.const(0x7FFFFFFF, "int32")
            )
            largest.set(tirx.max(largest.get(), magnitude))
        top = b.let(tirx.reinterpret("float32", largest.get()))
        zero = tirx.const(0.0, "float32")
        steps = b.let(tirx.Select(top > zero, tirx.const(127.0, "float32") / top, zero))
        half = self.block // 2
        with b.loop(half) as i:
            for odd in range(2):
                code = b.nearest(b.let(x[(*at, i * 2 + odd)] * steps))
                place = (row, vector, index(odd), block * half + i)
                self.codes.store(place, tirx.Cast("int8", code))
        with b.loop(half // 4) as i:
            lane = b.let(block * (half // 4) + i)
            total = tirx.const(0, "int32")
            for odd in range(2):
                for k in range(4):
                    code = self.codes[row, vector, odd, lane * 4 + k]
                    total = total + tirx.Cast("int32", code)
            self.starts.store((row, vector, lane), total * -_MIDDLE)
            self.factors.store((row, vector, lane), top * tirx.const(1 / 127, "float32"))

    def _sums(
        self, weights: BufferTensor, scales: BufferTensor, row: Expr, first: Expr, count: int
    ) -> list[Expr]:
        b, lanes = self.b, ramp(self.lanes)
        totals = [b.local((self.lanes,), "float32", "total") for _ in range(count)]
        for total in totals:
            total.store_raw([lanes], filled(0.0, self.lanes))
        ahead = columns_ahead(count, self.inner // 2)
        with b.loop(self.vectors) as v:
            even, odd = (
                b.let(self.codes.load_raw([row, v, index(half), ramp(self.bytes)]))
                for half in range(2)
            )
            start = b.let(self.starts.load_raw([row, v, lanes]))
            factor = b.let(self.factors.load_raw([row, v, lanes]))
            for n in range(count):
                prefetch(b, weights, (first + n + ahead, v, index(0)))
            for n, total in enumerate(totals):
                packed = weights.load_raw([first + n, v, ramp(self.bytes)])
                low, high = self._halves(b.let(packed))
                found = self.dot.add(b.let(self.dot.add(start, low, even)), high, odd)
                scale = b.let(spread(scales, (first + n, v), self.blocks, self.lanes) * factor)
                found = tirx.Cast(f"float32x{self.lanes}", found)
                total.store_raw([lanes], total.load_raw([lanes]) + found * scale)
        return [added(total, self.lanes) for total in totals]

    def _halves(self, packed: Expr) -> tuple[Expr, Expr]:
        """The low and the high 4 bits of each byte, as the dot product takes them."""
        kind = f"int8x{self.bytes}"
        low = tirx.bitwise_and(packed, self._bytes_of(15))
        high = tirx.shift_right(packed, self._bytes_of(4))
        return tirx.reinterpret(kind, low), tirx.reinterpret(kind, high)

    def _bytes_of(self, value: int) -> Expr:
        return tirx.Broadcast(tirx.const(value, "uint8"), self.bytes)


__all__ = ["matmul_nbits"]
