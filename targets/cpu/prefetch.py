"""Prefetching of what a task needs next, while it works on what it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tvm import DataType, tirx

from ..tir.builder import BufferTensor, Builder, index, static_product

Expr = Any

LINE = 64
"""Bytes of a cache line."""
_MOST_STEPS = 8
_GUESS = 16


def prefetch(b: Builder, tensor: BufferTensor, at: Sequence[Expr]) -> None:
    """Bring the cache line of an element near; it need not exist."""
    place = tirx.address_of(tirx.BufferLoad(tensor.buffer, tensor.place(at)))
    read, near, data = (tirx.const(n, "int32") for n in (0, 3, 1))
    b.evaluate(tirx.call_llvm_intrin("void", "llvm.prefetch.p0", place, read, near, data))


class NextTile:
    """Brings the next of ``weights`` [tiles, ...] into the cache, line by line.

    The lines are spread over all ``uses`` of the tile before (None: not known) and over ``turns``
    of each use, so that memory is busy all the time: ``lines`` in each turn.
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
        """Emit the prefetches of turn ``turn`` of the ``use``-th use of ``tile``."""
        for n in range(self.lines):
            self._one_line(tile, (use * self._turns + turn) * self.lines + n)

    def _one_line(self, tile: Expr, line: Expr) -> None:
        line = tirx.min(line, index(self._lines - 1))
        following = tirx.min(tile + 1, index(self._tiles - 1))
        prefetch(self.b, self._flat, (following, line * self._in_line))


def lines_of_tile(weights: BufferTensor, tiles: int) -> int:
    """Whole cache lines of one of ``tiles`` parts of ``weights``."""
    return _elements(weights) // tiles * item_bytes(weights) // LINE


def _elements(weights: BufferTensor) -> int:
    size = static_product(weights.shape)
    assert size is not None
    return size


def item_bytes(tensor: BufferTensor) -> int:
    """Bytes of an element in memory."""
    return int(DataType(str(tensor.buffer.dtype)).itemsize)


def steps_of_turn(steps: int, lines: int, uses: int | None) -> int:
    """Steps between two lines where ``steps`` steps of each use fetch ``lines`` lines in all.

    A power of two that divides ``steps``; 0 where one line a step is too few.
    """
    every = _MOST_STEPS
    while every and ((uses or _GUESS) * steps < every * lines or steps % every):
        every //= 2
    return every
