"""ConvTranspose as a gather: each output sums the inputs that would have been scattered to it.

Write an output column as ``o = q * stride + r``. Kernel position ``k`` contributes to it if ``(r +
pad - k * dilation) / stride`` is a whole number, from input column ``q`` plus that number. So for
one phase ``r``, neighbouring ``q`` read neighbouring columns, whatever the stride: with stride 2,
all even outputs use the same kernel positions, and all odd ones the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from tvm import tirx

from ....ir.windows import transpose_window
from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.extents import as_int, index, static_product
from ...tir.numeric import cast
from ..registry import LowerContext, lowering
from .conv_direct import block_start, blocks_of, choose_tile, clear, divided, in_memory
from .conv_rows import Columns

UNROLLED_PHASES = 4
"""Phases of the last dim that get loops of their own; more share one loop."""


@lowering("ConvTranspose")
def lower_conv_transpose(c: LowerContext) -> TensorExpr:
    """ConvTranspose-22: sums in float32 (float64 for float64)."""
    kernel = _Kernel(c)
    kernel.emit()
    return kernel.out


class _Kernel:
    """The loops of one ConvTranspose: x (N, C, ...), w (C, M/groups, ...), out (N, M, ...)."""

    def __init__(self, c: LowerContext) -> None:
        source, weight = c.input_types[0], c.input_types[1]
        assert source is not None and weight is not None
        window, _ = transpose_window(c.node, source.dims[2:], weight.dims[2:])
        b = self.b = c.b
        self.dtype = c.input(0).compute_dtype
        self.out = c.result()
        self.bias = c.buffered(2) if c.has(2) else None
        self.strides, self.dilations = window.strides, window.dilations
        self.pads = [b.dim(p) for p in window.begin]
        self.groups = c.attr("group") or 1
        self.weights = in_memory(b, c.input(1), self.dtype)
        self.kernel = self.weights.shape[2:]
        self.extents = c.input(0).shape[2:]
        self.depth = divided(c.input(0).shape[1], self.groups)
        self.filters = self.weights.shape[1]
        quotients = _ceil_div(self.out.shape[-1], self.strides[-1])
        self.tile = choose_tile(b, self.dtype, self.filters, 1, quotients)
        lowest = _floor_div(self.pads[-1] - (self.kernel[-1] - 1) * self.dilations[-1],
                            self.strides[-1])  # fmt: skip
        highest = _floor_div(self.strides[-1] - 1 + self.pads[-1], self.strides[-1])
        self.offset = lowest
        pitch = Columns(quotients, self.tile.columns).count * self.tile.columns
        self.rows = self._rows(c.input(0), pitch + (highest - lowest))

    def _rows(self, x: TensorExpr, width: Any) -> BufferTensor:
        """The input with its last dim moved by ``offset`` and padded with zeros."""
        rows = self.b.workspace((*x.shape[:-1], width), self.dtype, "rows")
        extent = index(x.shape[-1])

        def body(at: tuple[Expr, ...]) -> None:
            *lead, j = at
            i = j + self.offset
            inside = tirx.all(i >= 0, i < extent)
            i = tirx.max(tirx.min(i, extent - 1), index(0))
            value = cast(x.at(*lead, i), self.dtype)
            rows.store(at, tirx.Select(inside, value, tirx.const(0, self.dtype)))

        self.b.nest(rows.shape, body, cost=4 + x.cost)
        return rows

    def emit(self) -> None:
        b, (batch, _, *outer, _) = self.b, self.out.shape
        blocks = blocks_of(self.filters, self.tile.channels)

        def body(at: tuple[Expr, ...]) -> None:
            n, g, block, *lead = at
            m = b.let(block_start(b, block, self.tile.channels, self.filters))
            stride = self.strides[-1]
            if stride <= UNROLLED_PHASES:
                for r in range(stride):
                    self._phase(n, g, m, lead, r)
            else:
                with b.loop(stride) as r:
                    self._phase(n, g, m, lead, r)

        work = static_product((self.depth, *self.kernel, self.tile.channels, self.out.shape[-1]))
        b.nest((batch, self.groups, blocks, *outer), body, work or 1 << 16, sequential_last=True)

    def _phase(self, n: Expr, g: Expr, m: Expr, lead: Sequence[Expr], r: Any) -> None:
        """The outputs ``q * stride + r`` of one row, for a block of channels."""
        b, stride = self.b, self.strides[-1]
        columns = Columns(_ceil_div(self.out.shape[-1] - r, stride), self.tile.columns)
        with b.loop(columns.count) as t:
            start = b.let(columns.start(t))
            sums = b.local((self.tile.size,), self.dtype)
            clear(b, sums, self.tile)
            with b.grid(*self.kernel) as k:
                places, valid = self._outer_places(lead, k)
                moved = self._moved(r + self.pads[-1] - k[-1] * self.dilations[-1], stride)
                valid.append(tirx.floormod(moved, index(stride)).equal(index(0)))
                with b.when(tirx.all(*valid)):
                    shift = b.let(tirx.floordiv(moved, index(stride)) - self.offset + start)
                    self._accumulate(sums, (n, g, m), places, k, shift)
            self._store(sums, columns, (n, g * self.filters + m, *lead), start, r)

    def _outer_places(
        self, lead: Sequence[Expr], k: Sequence[Expr]
    ) -> tuple[list[Expr], list[Expr]]:
        """The input's outer indices for output row ``lead`` and ``k``, and conditions that they
        exist.
        """
        places, valid = [], []
        for d, o in enumerate(lead):
            stride = index(self.strides[d])
            moved = o + self.pads[d] - k[d] * self.dilations[d]
            moved = self._moved(moved, self.strides[d])
            place = self.b.let(tirx.floordiv(moved, stride))
            valid += [place >= 0, place < index(self.extents[d])]
            if self.strides[d] > 1:
                valid.append(tirx.floormod(moved, stride).equal(index(0)))
            places.append(place)
        return places, valid

    def _moved(self, position: Expr, stride: int) -> Expr:
        """A position that is divided by the stride, if the stride divides it.

        Under that condition TVM simplifies ``(1 - k) // 2`` to ``k // -2``, which is wrong, so the
        sum is hidden from it.
        """
        return position if stride == 1 else self.b.opaque(position)

    def _accumulate(self, sums: BufferTensor, channel: tuple[Expr, Expr, Expr],
                    places: list[Expr], k: Sequence[Expr], shift: Expr) -> None:  # fmt: skip
        b, (n, g, m) = self.b, channel
        with b.loop(self.depth) as depth:
            c = b.let(g * self.depth + depth)
            for r in range(self.tile.channels):
                weight = self.weights.at(c, m + r, *k)
                base = self.tile.row(r, 0)
                with b.lanes(self.tile.columns) as lane:
                    value = self.rows.at(n, c, *places, shift + lane)
                    sums.store((base + lane,), sums[base + lane] + weight * value)

    def _store(self, sums: BufferTensor, columns: Columns, at: Sequence[Expr], start: Expr,
               phase: Any) -> None:  # fmt: skip
        n, m, *lead = at

        def write(r: int, lane: Expr) -> None:
            value = sums[self.tile.row(r, 0) + lane]
            if self.bias is not None:
                value = value + self.bias[m + r]
            column = (start + lane) * self.strides[-1] + phase
            self.out.store((n, m + r, *lead, column), value)

        for r in range(self.tile.channels):
            columns.each(self.b, start, partial(write, r))


def _floor_div(a: Any, by: int) -> Any:
    known = as_int(a)
    return known // by if known is not None else tirx.floordiv(a, index(by))


def _ceil_div(a: Any, by: int) -> Any:
    return _floor_div(a + (by - 1), by)
