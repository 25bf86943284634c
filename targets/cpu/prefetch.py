"""Prefetching of the weights that a task needs next, while it works on those it has."""

from __future__ import annotations

from typing import Any

from tvm import DataType, tirx

from ..tir.builder import BufferTensor, Builder, index

Expr = Any

_LINE = 64
_MOST_STEPS = 8
_MOST_TILES = 64
"""Tiles of rows beyond which the first use of weights does not matter."""


class NextTile:
    """Brings the next of ``weights`` [tiles, steps, width] into the cache, line by line.

    The lines are spread over all uses of the tile before, ``row_tiles`` of them (None: not known),
    so that memory is busy all the time: one line every ``every`` steps of each use. ``every`` is 0
    where that would be too few or where it does not pay.
    """

    def __init__(self, b: Builder, weights: BufferTensor, row_tiles: int | None) -> None:
        self.b = b
        self.tiles, self.steps, width = (int(d) for d in weights.shape)
        size = DataType(str(weights.buffer.dtype)).itemsize
        self._in_line = _LINE // size
        self._lines = self.steps * width // self._in_line
        self._flat = b.view(weights, (self.tiles, self.steps * width))
        self.every = self._choose(row_tiles)

    def _choose(self, row_tiles: int | None) -> int:
        if self.tiles == 1 or self._lines == 0 or row_tiles is not None and row_tiles > _MOST_TILES:
            return 0
        uses = row_tiles or 2 * _MOST_STEPS
        every = _MOST_STEPS
        while every and (uses * self.steps < every * self._lines or self.steps % every):
            every //= 2
        return every

    def one_line(self, tile: Expr, use: Expr, turn: Expr) -> None:
        """Emit the prefetch of turn ``turn`` of the ``use``-th use of ``tile``."""
        line = use * (self.steps // self.every) + turn
        line = tirx.min(line, index(self._lines - 1))
        following = tirx.min(tile + 1, index(self.tiles - 1))
        place = tirx.BufferLoad(self._flat.buffer, [following, line * self._in_line])
        read, near, data = (tirx.const(n, "int32") for n in (0, 3, 1))
        self.b.evaluate(
            tirx.call_llvm_intrin(
                "void", "llvm.prefetch.p0", tirx.address_of(place), read, near, data
            )
        )
