"""How the positions of an image become the rows of register tiles.

For 1x1 windows with stride 1 the image is one long row. Otherwise a tile takes whole rows of the
image where they fit (2 rows of 7 make 14 positions), or else part of one row. Volumes are images
one after another.
"""

from __future__ import annotations

from math import prod

from ...ir.windows import ConvShape
from .dot import cost_of
from .features import CpuFeatures
from .tiling import GUESS, MultiplyAdd, Runs, Tile, cover, near_cycles, rank_tiles, streamed_cycles


def rows_of_tile(height: int | None, width: int | None, limit: int) -> int:
    """How many whole rows of an image fit into ``limit`` positions; 0 for less than one."""
    if not width or height is None or height < 2:
        return 0
    return limit // width


def image_runs(height: int | None, width: int | None, limit: int) -> Runs:
    """Tiles of at most ``limit`` positions that cover an image, as (positions, count).

    An unknown height counts as 1, an unknown width as :data:`GUESS`, in tiles of ``limit`` and a
    rest.
    """
    lines = 1 if height is None else height
    if width is None:
        whole, rest = divmod(GUESS, limit)
        return [(limit, whole * lines), *([(rest, lines)] if rest else [])]
    whole = rows_of_tile(height, width, limit)
    if whole and height is not None and width is not None:
        return [(rows * width, count) for rows, count in cover(height, whole)]
    return [(size, count * lines) for size, count in cover(width, limit)]


def rank_conv_tiles(cpu: CpuFeatures, shape: ConvShape) -> list[Tile]:
    """The register tiles of a direct convolution, the cheapest by estimate first.

    Weights that fill more than half of the first-level cache count as streamed.
    """
    height, width = plane_of(shape)
    steps = shape.channels
    for k in shape.kernel:
        steps *= k
    bytes_of_vector = cpu.vector_bytes * steps // (4 if shape.integer else 1)

    def cycles(rows: int, vectors: int, add: MultiplyAdd) -> float:
        near = 2 * vectors * bytes_of_vector <= cpu.l1
        return (near_cycles if near else streamed_cycles)(rows, vectors, add)

    vectors = -(-shape.filters // cpu.lanes)
    add = cost_of(cpu, "int8" if shape.integer else "float32")
    return rank_tiles(cpu, lambda limit: image_runs(height, width, limit), vectors, cycles, add)


def positions_of_tile(shape: ConvShape, limit: int) -> int:
    """The positions of the largest tile that a direct convolution uses; at most ``limit``."""
    return max((size for size, _ in image_runs(*plane_of(shape), limit)), default=limit)


def plane_of(shape: ConvShape) -> tuple[int | None, int | None]:
    """Height and width of the image as the kernel sees it; None where not known.

    For 1x1 windows all positions are one row, and an image of one column is one row, too.
    """
    if all(n == 1 for n in (*shape.kernel, *shape.strides)):
        known = [d for d in shape.image if d is not None]
        return 1, prod(known) if len(known) == len(shape.image) else None
    height, width = [1, 1, *(d for d in shape.image if d != 1)][-2:]
    return height, width
