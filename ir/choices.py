"""Choices for convolutions and products: tile and algorithm, and the shapes that they depend on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from .windows import ConvShape


@dataclass(frozen=True)
class ProductShape:
    """A product of ``rows`` (None: not known) x ``inner`` by packed ``inner`` x ``columns``.

    ``operand`` and ``weight`` are the element types of the two sides.
    """

    rows: int | None
    columns: int
    inner: int
    operand: str = "float32"
    weight: str = "float32"


KernelShape: TypeAlias = ConvShape | ProductShape
"""What a choice depends on: the shape of a convolution or of a product."""

DIRECT = "direct"
"""The algorithm that computes a sum of products by its definition."""

LISTED = "listed steps"
"""The algorithm that multiplies only by those steps of the weights that are not zero."""


@dataclass(frozen=True)
class Choice:
    """How a kernel computes: the ``columns`` of its register tile, and the algorithm.

    Columns are those of a product's result, or the filters of a convolution. ``algorithm`` is
    ``direct``, or for convolutions ``winograd_4x4`` or ``winograd_2x2``, named after the outputs of
    a Winograd tile.
    """

    columns: int
    algorithm: str = DIRECT


def shape_key(shape: KernelShape) -> str:
    """The key of a shape in databases, which differs for different shapes.

    For instance ``conv 64x64 group 1 kernel 3x3 strides 1x1 dilations 1x1 image 56x56 float32``.
    """
    if isinstance(shape, ProductShape):
        types = f"{shape.operand} {shape.weight}"
        return f"product {_extent(shape.rows)}x{shape.inner}x{shape.columns} {types}"
    return (
        f"conv {shape.channels}x{shape.filters} group {shape.group} kernel {_by(shape.kernel)}"
        f" strides {_by(shape.strides)} dilations {_by(shape.dilations)}"
        f" image {_by(shape.image)} {'int8' if shape.integer else 'float32'}"
        f"{' short' if shape.short_sums else ''}"
    )


def _by(extents: tuple[int | None, ...]) -> str:
    return "x".join(map(_extent, extents))


def _extent(extent: int | None) -> str:
    return "?" if extent is None else str(extent)
