"""Rows of a product (or positions of an image), cut into register tiles, shared out to tasks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ..tir.builder import Builder
from ..tir.extents import as_int, index
from .tiling import cover

Expr = Any

_GROUP = 16
"""Tiles in a group where the number of rows is only known at run time."""


class RowTiles:
    """Tiles of at most ``limit`` rows that cover ``rows``, in ``groups`` of neighbouring tiles.

    A group is the work of one task. The tasks have other axes too, of ``others`` entries in all
    (None: not known, so enough): where these alone make enough tasks for all cores, there is one
    group.

    Where ``rows`` is known, tiles are nearly equal: 10 rows by at most 4 are 4 + 3 + 3. Where only
    the run knows it, there are as many full tiles as fit, and then smaller ones: 27 rows by 14 are
    14 + 4 + 4 + 4 + 1. So the code has three tiles rather than fourteen.
    """

    def __init__(self, b: Builder, rows: Any, limit: int, others: int | None) -> None:
        self.b = b
        self.rows = rows
        self.limit = limit
        tasks = b.loops.tasks
        wanted = -(-tasks // max(others or tasks, 1))
        known = as_int(rows)
        self._cover = None if known is None else cover(known, limit)
        self.tiles = None if known is None else sum(n for _, n in cover(known, limit))
        self._many = wanted > 1
        self.groups: Any = self._groups(wanted)

    def _groups(self, wanted: int) -> Any:
        if self.tiles is not None:
            return max(1, min(wanted, self.tiles))
        if not self._many:
            return 1
        size = self.limit * _GROUP
        return tirx.floordiv(index(self.rows) + (size - 1), index(size))

    def number(self, row: Expr) -> Expr:
        """The number of the tile that starts with ``row``."""
        if self.tiles is None:
            return tirx.floordiv(row, index(self.limit))
        return tirx.floordiv(row * self.tiles, index(self.rows))

    @property
    def rows_of_group(self) -> int:
        """Rows of a group: the most, if the number of rows is known, else those of a full group."""
        known = as_int(self.rows)
        return self.limit * _GROUP if known is None else -(-known // self.groups)

    def each(self, group: Expr, tile: Callable[[Expr, int], None]) -> None:
        """Emit ``tile(first_row, size)`` for all tiles of a group."""
        if self._cover is None:
            self._each_at_run_time(group, tile)
        elif self.groups == 1:
            self._each_of(tile, lambda start, count: (index(0), count))
        else:
            self._each_of(tile, self._share(group))

    def _share(self, group: Expr) -> Callable[[int, int], tuple[Expr, Expr]]:
        """Shares out the tiles evenly: ``group`` has those from ``low`` to ``high``.

        The result tells of a run of ``count`` tiles of one size, the first of which is number
        ``start``, which of them are in the group: (first, how many).
        """
        low = self.b.let(tirx.floordiv(group * self.tiles, index(self.groups)), "low")
        high = self.b.let(tirx.floordiv((group + 1) * self.tiles, index(self.groups)), "high")

        def share(start: int, count: int) -> tuple[Expr, Expr]:
            first = self.b.let(tirx.max(low - start, index(0)))
            last = tirx.min(high - start, index(count))
            return first, self.b.let(tirx.max(last - first, index(0)))

        return share

    def _each_of(
        self, tile: Callable[[Expr, int], None],
        share: Callable[[int, int], tuple[Expr, Expr]],
    ) -> None:  # fmt: skip
        start = row = 0
        for size, count in self._cover or ():
            first, extent = share(start, count)
            with self.b.loop(extent) as i:
                tile(self.b.let((first + i) * size + row, "row"), size)
            start, row = start + count, row + size * count

    def _each_at_run_time(self, group: Expr, tile: Callable[[Expr, int], None]) -> None:
        """Full tiles in a loop, then smaller and smaller ones for the rows left over."""
        b, limit = self.b, self.limit
        start, rows = index(0), index(self.rows)
        if self._many:
            start = b.opaque(group * (limit * _GROUP))
            rows = b.opaque(tirx.min(index(limit * _GROUP), rows - start))
        full = b.let(tirx.floordiv(rows, index(limit)), "full")
        with b.loop(full) as i:
            tile(b.let(start + i * limit, "row"), limit)
        done = b.opaque(start + full * limit)
        left = b.opaque(start + rows - done)
        for size in _sizes_below(limit):
            count = b.opaque(tirx.floordiv(left, index(size)))
            with b.loop(count) as i:
                tile(b.let(done + i * size, "row"), size)
            done = b.opaque(done + count * size)
            left = b.opaque(left - count * size)


def _sizes_below(limit: int) -> list[int]:
    """The tiles of rows left over by tiles of ``limit``: of these, few of each make any number.

    The code of a tile takes long to compile, and a tile of few rows to run.
    """
    if limit <= 8:
        return [n for n in (4, 2, 1) if n < limit]
    return [4, 1] if limit <= 16 else [8, 2, 1]
