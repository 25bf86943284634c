"""Choice of register tiles by an analytic cost model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from .features import CpuFeatures

Cycles: TypeAlias = Callable[[int, int], float]


@dataclass(frozen=True)
class Tile:
    """``rows`` x ``vectors`` accumulator registers."""

    rows: int
    vectors: int


def accumulator_budget(cpu: CpuFeatures, vectors: int, parts: int = 1) -> int:
    """Rows that fit beside ``vectors`` weights and one broadcast, of ``parts`` registers each."""
    return max(1, (cpu.registers - parts * (vectors + 1)) // vectors)


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


def cover(extent: int, rows: int) -> list[tuple[int, int]]:
    """How tiles of at most ``rows`` rows cover ``extent``: (rows, count), near-equal tiles."""
    if extent == 0:
        return []
    count = -(-extent // rows)
    small, larger = divmod(extent, count)
    out = []
    if larger:
        out.append((small + 1, larger))
    if count - larger:
        out.append((small, count - larger))
    return out


def row_cost(extent: int, rows: int, vectors: int, cycles: Cycles = step_cycles) -> float:
    """Estimated cycles per reduction step for all of ``extent`` rows, per vector of columns."""
    overhead = 0.5
    total = sum(n * (cycles(r, vectors) + overhead) for r, n in cover(extent, rows))
    return total / vectors


def choose_tile(
    cpu: CpuFeatures, extent: int | None, vectors_wanted: int, cycles: Cycles = step_cycles
) -> Tile:
    """The cheapest tile for ``extent`` rows (None: unknown) and that many vectors of columns.

    ``cycles(rows, vectors)`` estimates one rank-one update.
    """
    return rank_tiles(cpu, extent, vectors_wanted, cycles)[0]


def rank_tiles(
    cpu: CpuFeatures, extent: int | None, vectors_wanted: int, cycles: Cycles = step_cycles
) -> list[Tile]:
    """One tile for each number of vectors in a row, the cheapest first; see :func:`choose_tile`."""
    ranked: list[tuple[float, Tile]] = []
    for vectors in range(1, min(6, vectors_wanted) + 1):
        limit = accumulator_budget(cpu, vectors)
        rows = limit if extent is None else min(limit, extent)
        waste = -(-vectors_wanted // vectors) * vectors / vectors_wanted
        size = extent if extent is not None else 64
        cost = row_cost(size, rows, vectors, cycles) * waste
        ranked.append((round(cost, 9), Tile(rows, vectors)))
    return [tile for _, tile in sorted(ranked, key=lambda r: r[0])]
