"""Prefetching: while a kernel works on one tile of weights, it loads the next into the cache.

A tile of weights is used several times, once for each tile of rows (a *use*), and each use has
loops of several iterations (*turns*). The cache lines of the next tile are shared out evenly: 256
lines over 8 uses of 16 turns are 2 lines in each turn.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import DataType, tirx

from ..tir.builder import BufferTensor, Builder
from ..tir.extents import index, static_product

Expr = Any

LINE = 64
"""Bytes of a cache line."""
_MOST_STEPS = 8
"""Steps of the reduction between two prefetches, at most."""
_AHEAD = 4096
"""Bytes from columns that are multiplied to those that are prefetched."""
_GUESS = 16
"""Uses of a tile to assume where their number is not known."""


def prefetch(b: Builder, tensor: BufferTensor, at: Sequence[Expr]) -> None:
    """Load the cache line of an element. The address need not be valid: a prefetch never faults."""
    place = tirx.address_of(tirx.BufferLoad(tensor.buffer, [tensor.place(at)]))
    read, near, data = (tirx.const(n, "int32") for n in (0, 3, 1))
    b.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch.p0", place, read, near, data))


def columns_ahead(together: int, column: int) -> int:
    """How many columns ahead of those that are multiplied others are prefetched.

    So many are multiplied ``together``, of ``column`` bytes each, which is too short for hardware
    to find out how it goes on.
    """
    return together * max(1, -(-_AHEAD // (together * column)))


class NextTile:
    """Prefetches the next tile of ``weights`` ``[tiles, ...]``, line by line.

    Its lines are spread over all ``uses`` of the current tile (None: not known) and the ``turns``
    of each use, ``lines`` in each, so that memory is busy all the time.
    """

    def __init__(
        self, b: Builder, weights: BufferTensor, tiles: int, uses: int | None, turns: int
    ) -> None:
        self.b = b
        self._tiles, self._turns = tiles, turns
        self._in_line = LINE // item_bytes(weights)
        self._lines = lines_of_tile(weights, tiles)
        self._flat = b.view(weights, (tiles, _elements(weights) // tiles))
        self.lines = -(-self._lines // ((uses or _GUESS) * turns))

    def fetch(self, tile: Expr, use: Expr, turn: Expr) -> None:
        """Emit the prefetches for iteration ``turn`` of use number ``use`` of ``tile``."""
        for n in range(self.lines):
            self._one_line(tile, (use * self._turns + turn) * self.lines + n)

    def _one_line(self, tile: Expr, line: Expr) -> None:
        line = tirx.min(line, index(self._lines - 1))
        following = tirx.min(tile + 1, index(self._tiles - 1))
        prefetch(self.b, self._flat, (following, line * self._in_line))


def lines_of_tile(weights: BufferTensor, tiles: int) -> int:
    """Whole cache lines of a tile of ``weights``, of which there are ``tiles``."""
    return _elements(weights) // tiles * item_bytes(weights) // LINE


def _elements(weights: BufferTensor) -> int:
    size = static_product(weights.shape)
    assert size is not None
    return size


def item_bytes(tensor: BufferTensor) -> int:
    """Bytes of an element in memory."""
    return int(DataType(str(tensor.buffer.dtype)).itemsize)


def steps_of_turn(steps: int, lines: int, uses: int | None) -> int:
    """Steps of the reduction that make one turn, in which one line is prefetched.

    All ``uses``, of ``steps`` steps each, must fetch ``lines`` lines together. The result is a
    power of two that divides ``steps``, or 0 where even one line in each step is too few.
    """
    every = _MOST_STEPS
    while every and ((uses or _GUESS) * steps < every * lines or steps % every):
        every //= 2
    return every
