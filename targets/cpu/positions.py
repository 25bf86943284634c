"""How the positions of an image become the rows of register tiles.

Windows that neither move nor reach make one long row of an image. Of other images a tile takes
whole rows where they fit, or else some positions of a row. Volumes are images one after another.
"""

from __future__ import annotations

from math import prod

from ...ir.windows import ConvShape
from .features import CpuFeatures
from .tiling import Runs, Tile, cover, near_cycles, rank_tiles, streamed_cycles


def rows_of_tile(height: int | None, width: int | None, limit: int) -> int:
    """How many whole rows of an image a tile of at most ``limit`` positions takes; 0 for parts."""
    if not width or height is None or height < 2:
        return 0
    return limit // width


def image_runs(height: int | None, width: int | None, limit: int) -> Runs:
    """Tiles of at most ``limit`` positions that cover an image, as (positions, count).

    An image whose height is not known counts as one row.
    """
    whole = rows_of_tile(height, width, limit)
    if whole and height is not None and width is not None:
        return [(rows * width, count) for rows, count in cover(height, whole)]
    rows = 1 if height is None else height
    return [(size, count * rows) for size, count in cover(limit if width is None else width, limit)]


def rank_conv_tiles(cpu: CpuFeatures, shape: ConvShape) -> list[Tile]:
    """The register tiles of a direct convolution, the best estimate first."""
    height, width = plane_of(shape)
    steps = shape.channels
    for k in shape.kernel:
        steps *= k
    bytes_of_vector = cpu.vector_bytes * steps // (4 if shape.integer else 1)

    def cycles(rows: int, vectors: int) -> float:
        near = 2 * vectors * bytes_of_vector <= cpu.l1
        return (near_cycles if near else streamed_cycles)(rows, vectors)

    vectors = -(-shape.filters // cpu.lanes)
    return rank_tiles(cpu, lambda limit: image_runs(height, width, limit), vectors, cycles)


def positions_of_tile(shape: ConvShape, limit: int) -> int:
    """How many positions the largest tile of a direct convolution takes, of at most ``limit``."""
    return max((size for size, _ in image_runs(*plane_of(shape), limit)), default=limit)


def plane_of(shape: ConvShape) -> tuple[int | None, int | None]:
    """Height and width, as the kernel sees them: single columns lie on their side."""
    if all(n == 1 for n in (*shape.kernel, *shape.strides)):
        known = [d for d in shape.image if d is not None]
        return 1, prod(known) if len(known) == len(shape.image) else None
    height, width = [1, 1, *(d for d in shape.image if d != 1)][-2:]
    return height, width
