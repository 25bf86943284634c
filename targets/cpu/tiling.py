"""Choice of register tiles by an analytic cost model.

A register tile is a part of the result, ``rows`` by ``vectors`` of columns, whose sums stay in
registers during the whole reduction. With 32 registers a tile of 14 rows by 2 vectors has 28 sums;
2 registers hold the weights of a step, 1 the broadcast operand, and 1 is left. A step loads 14 + 2
values for 28 multiply-adds, so wider or taller tiles load less, but waste more where the result is
no multiple of them. The model weighs that for each width, from 1 vector to 6.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from .features import CpuFeatures


@dataclass(frozen=True)
class MultiplyAdd:
    """What one multiply-add of vectors takes: ``cycles`` of a core, and so many registers besides
    those of sums, weights and operands.

    ``operand`` are the cycles that a convolution loses by the operand of each row, which were
    fitted to measurements.
    """

    cycles: float = 0.5
    registers: int = 0
    operand: float = 0.07


SINGLE = MultiplyAdd()
"""A multiply-add of one instruction, of which a core starts two in a cycle."""


Cycles: TypeAlias = Callable[[int, int, MultiplyAdd], float]
"""Estimates the cycles of one step of the reduction (a rank-one update of the tile's sums), for
(rows, vectors)."""

Runs: TypeAlias = list[tuple[int, int]]
"""Tiles as (rows of each, how many): ``[(4, 1), (3, 2)]`` covers 10 rows."""

GUESS = 64
"""Rows to assume where their number is not known."""


@dataclass(frozen=True)
class Tile:
    """``rows`` x ``vectors`` accumulator registers.

    ``cycles`` estimates a step of the reduction for all rows and columns, where that is known.
    """

    rows: int
    vectors: int
    cycles: float = field(default=0.0, compare=False)

    def covering(self, extent: int | None) -> Tile:
        """The tile with the rows that are in use where ``extent`` rows are covered.

        10 rows by at most 4 are 4 + 3 + 3: the result has 4. An unknown extent leaves the tile.
        """
        return self if not extent else replace(self, rows=cover(extent, self.rows)[0][0])

    def text(self, lanes: int) -> str:
        """The part of the result that it holds, as rows by columns: ``14x32``."""
        return f"{self.rows}x{self.vectors * lanes}"


PER_SCALAR = 16
"""So many operations in register tiles take as long as one scalar operation of a generic loop.

Costs of loop bodies, by which loops become parallel, count in the latter."""


def tile_cost(operations: int) -> int:
    """The cost of a loop body that does so many operations in register tiles."""
    return max(1, operations // PER_SCALAR)


def accumulator_budget(cpu: CpuFeatures, vectors: int, add: MultiplyAdd = SINGLE) -> int:
    """Rows of a tile that the registers have room for.

    Beside ``rows * vectors`` sums there are ``vectors`` weights and one broadcast operand: ``(32 -
    2 - 1) // 2 = 14`` rows of 2 vectors.
    """
    return max(1, (cpu.registers - add.registers - vectors - 1) // vectors)


def largest_tile(cpu: CpuFeatures, vectors: int, add: MultiplyAdd = SINGLE) -> Tile:
    """The register tile with the most rows for a width of ``vectors``."""
    return Tile(accumulator_budget(cpu, vectors, add), vectors)


def step_cycles(rows: int, vectors: int, add: MultiplyAdd = SINGLE) -> float:
    """Cycles of a step: its multiply-adds, or its loads, two in a cycle; whichever take longer."""
    return max(rows * vectors * add.cycles, (rows + vectors) / 2)


def product_cycles(rows: int, vectors: int, add: MultiplyAdd = SINGLE) -> float:
    """:func:`step_cycles` of matrix products, whose operands come from the second-level cache.

    The added terms were fitted to measurements. Each load costs a little, so that squarer tiles,
    which load less for each multiply-add, win. More than 8 rows are more than the ways of the
    first-level cache, so they evict each other. Weights of more than four vectors come more slowly
    from memory.
    """
    beyond = 0.1 * max(0, rows - 8) + 0.3 * max(0, vectors - 4)
    return step_cycles(rows, vectors, add) + 0.03 * rows + 0.06 * vectors + beyond


def near_cycles(rows: int, vectors: int, add: MultiplyAdd = SINGLE) -> float:
    """:func:`step_cycles` of convolutions, whose operands and weights are in the first-level
    cache.
    """
    return step_cycles(rows, vectors, add) + add.operand * rows


def streamed_cycles(rows: int, vectors: int, add: MultiplyAdd = SINGLE) -> float:
    """:func:`near_cycles` for weights that come from the second-level cache."""
    return near_cycles(rows, vectors, add) + 0.65 * vectors


def cover(extent: int, rows: int) -> Runs:
    """The fewest tiles of at most ``rows`` rows that cover ``extent``, as equal as possible."""
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
    """A function from the most rows of a tile to the tiles that cover ``extent`` rows."""
    return lambda limit: cover(GUESS if extent is None else extent, limit)


def runs_cost(runs: Runs, vectors: int, cycles: Cycles, add: MultiplyAdd = SINGLE) -> float:
    """Estimated cycles of one reduction step, for all rows of ``runs``, per vector of columns."""
    overhead = 0.5
    return sum(n * (cycles(r, vectors, add) + overhead) for r, n in runs) / vectors


def rank_tiles(
    cpu: CpuFeatures, runs: Callable[[int], Runs], vectors_wanted: int, cycles: Cycles,
    add: MultiplyAdd = SINGLE,
) -> list[Tile]:  # fmt: skip
    """A tile for each width of 1 to 6 vectors, the cheapest first.

    The result is ``vectors_wanted`` vectors wide, and ``runs(limit)`` are the tiles of at most
    ``limit`` rows that cover all of its rows. What a last tile computes beyond the columns counts
    as cost: 3 vectors by tiles of 2 cost a third more.
    """
    ranked: list[tuple[float, Tile]] = []
    for vectors in range(1, min(6, vectors_wanted) + 1):
        tiles = runs(accumulator_budget(cpu, vectors, add))
        waste = -(-vectors_wanted // vectors) * vectors / vectors_wanted
        cost = runs_cost(tiles, vectors, cycles, add) * waste
        largest = max((r for r, _ in tiles), default=0)
        ranked.append((round(cost, 9), Tile(largest, vectors, cost * vectors_wanted)))
    return [tile for _, tile in sorted(ranked, key=lambda r: r[0])]


def rank_product_tiles(
    cpu: CpuFeatures, rows: int | None, columns: int, add: MultiplyAdd = SINGLE
) -> list[Tile]:
    """:func:`rank_tiles` for a matrix product with ``rows`` (None: unknown) by ``columns``."""
    vectors = -(-max(columns, 1) // cpu.lanes)
    return rank_tiles(cpu, rows_cover(rows), vectors, product_cycles, add)
