"""Choice of register tiles by an analytic cost model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from .features import CpuFeatures

Cycles: TypeAlias = Callable[[int, int], float]
"""Estimated cycles of one rank-one update of (rows, vectors)."""

Runs: TypeAlias = list[tuple[int, int]]
"""Tiles as (rows of each, how many)."""

_GUESS = 64
"""Rows where their number is not known."""


@dataclass(frozen=True)
class Tile:
    """``rows`` x ``vectors`` accumulator registers.

    ``cycles`` estimates a step of the reduction for all rows and columns, where that is known.
    """

    rows: int
    vectors: int
    cycles: float = field(default=0.0, compare=False)

    def covering(self, extent: int | None) -> Tile:
        """The largest of the tiles, of at most so many rows, that cover ``extent`` rows."""
        return self if not extent else replace(self, rows=cover(extent, self.rows)[0][0])

    def text(self, lanes: int) -> str:
        """The elements of the result that it holds, as rows by columns: ``14x32``."""
        return f"{self.rows}x{self.vectors * lanes}"


PER_SCALAR = 16
"""Operations in register tiles that take as long as one scalar operation of a generic loop."""


def tile_cost(operations: int) -> int:
    """The cost of a loop body that does so many operations in register tiles."""
    return max(1, operations // PER_SCALAR)


def accumulator_budget(cpu: CpuFeatures, vectors: int, parts: int = 1) -> int:
    """Rows that fit beside ``vectors`` weights and one broadcast, of ``parts`` registers each."""
    return max(1, (cpu.registers - parts * (vectors + 1)) // vectors)


def largest_tile(cpu: CpuFeatures, vectors: int, parts: int = 1) -> Tile:
    """The register tile of so many vectors of columns with the most rows."""
    return Tile(accumulator_budget(cpu, vectors, parts), vectors)


def step_cycles(rows: int, vectors: int) -> float:
    """Cycles of one rank-one update: two FMAs a cycle, or two loads a cycle, whichever is more."""
    return max(rows * vectors, rows + vectors) / 2


def product_cycles(rows: int, vectors: int) -> float:
    """:func:`step_cycles` for operands that stream from the second-level cache.

    What loads add was fitted to measurements: squarer tiles load less for each multiply-add, rows
    that are more than the ways of the first-level cache evict each other, and weights more than
    four vectors wide come more slowly from memory.
    """
    beyond = 0.1 * max(0, rows - 8) + 0.3 * max(0, vectors - 4)
    return step_cycles(rows, vectors) + 0.03 * rows + 0.06 * vectors + beyond


def near_cycles(rows: int, vectors: int) -> float:
    """:func:`step_cycles` for convolutions, whose operands and weights are near.

    What loads add was fitted to measurements, as for :func:`product_cycles`.
    """
    return step_cycles(rows, vectors) + 0.07 * rows


def streamed_cycles(rows: int, vectors: int) -> float:
    """:func:`near_cycles` for weights that come from the second-level cache."""
    return near_cycles(rows, vectors) + 0.65 * vectors


def cover(extent: int, rows: int) -> Runs:
    """How tiles of at most ``rows`` rows cover ``extent``: (rows, count), near-equal tiles."""
    if extent == 0:
        return []
    count = -(-extent // rows)
    small, larger = divmod(extent, count)
    out: Runs = []
    if larger:
        out.append((small + 1, larger))
    if count - larger:
        out.append((small, count - larger))
    return out


def rows_cover(extent: int | None) -> Callable[[int], Runs]:
    """How tiles of at most so many rows cover ``extent`` rows."""
    return lambda limit: cover(_GUESS if extent is None else extent, limit)


def runs_cost(runs: Runs, vectors: int, cycles: Cycles) -> float:
    """Estimated cycles per reduction step for all rows of ``runs``, per vector of columns."""
    overhead = 0.5
    return sum(n * (cycles(r, vectors) + overhead) for r, n in runs) / vectors


def rank_tiles(
    cpu: CpuFeatures, runs: Callable[[int], Runs], vectors_wanted: int, cycles: Cycles
) -> list[Tile]:
    """Tiles for ``vectors_wanted`` vectors of columns, one for each width, the cheapest first.

    ``runs(limit)`` are the tiles of at most ``limit`` rows that cover all rows.
    """
    ranked: list[tuple[float, Tile]] = []
    for vectors in range(1, min(6, vectors_wanted) + 1):
        tiles = runs(accumulator_budget(cpu, vectors))
        waste = -(-vectors_wanted // vectors) * vectors / vectors_wanted
        cost = runs_cost(tiles, vectors, cycles) * waste
        largest = max((r for r, _ in tiles), default=0)
        ranked.append((round(cost, 9), Tile(largest, vectors, cost * vectors_wanted)))
    return [tile for _, tile in sorted(ranked, key=lambda r: r[0])]


def rank_product_tiles(cpu: CpuFeatures, rows: int | None, columns: int) -> list[Tile]:
    """:func:`rank_tiles` of a product of ``rows`` (None: unknown) by ``columns``."""
    vectors = -(-max(columns, 1) // cpu.lanes)
    return rank_tiles(cpu, rows_cover(rows), vectors, product_cycles)


def rank_winograd_tiles(cpu: CpuFeatures, tiles: int, filters: int) -> list[Tile]:
    """:func:`rank_tiles` of the products of a convolution in Winograd's form.

    ``tiles`` are those of the image; every product reads other weights, so they come from afar.
    """
    return rank_tiles(cpu, rows_cover(tiles), -(-filters // cpu.lanes), streamed_cycles)
