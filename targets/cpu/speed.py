"""Estimates of how long kernels take on one core: by the tiles' cost model, or by nominal rates.

The clock and the bandwidth are nominal, since decisions only compare estimates with each other.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ...ir.choices import KernelShape, ProductShape
from ...ir.costs import USUAL, Rates
from ...ir.windows import ConvShape
from .dot import integer_depth, rank_packed_tiles
from .features import CpuFeatures
from .positions import plane_of, rank_conv_tiles
from .tiling import PER_SCALAR
from .winograd_choice import winograd_form, winograd_operations

CLOCK = 2.5e9
"""Cycles in a second."""
BANDWIDTH = 10e9
"""Bytes from and to memory in a second."""
_GENERIC = 5
"""The generic schedule takes so many times as long as a template for sums of products."""


def rates(cpu: CpuFeatures) -> Rates:
    """The rates of the generic schedule on one core, in operations and bytes per second.

    A template does two multiply-adds, of two operations each, in all lanes in each cycle.
    """
    tiles = 2 * 2 * cpu.lanes * CLOCK
    products = tiles / _GENERIC
    wide = products / 2
    return Rates(
        {"float32": products, "float64": wide, "int8": products}, tiles / PER_SCALAR, BANDWIDTH
    )


def template_seconds(cpu: CpuFeatures, shape: KernelShape) -> float:
    """Seconds that the template takes for a convolution or product, with the model's best tile."""
    cycles = _product(cpu, shape) if isinstance(shape, ProductShape) else _conv(cpu, shape)
    return cycles / CLOCK


def _product(cpu: CpuFeatures, shape: ProductShape) -> float:
    depth = 1 if shape.operand == "float32" else integer_depth(cpu)
    rows = USUAL if shape.rows is None else shape.rows
    tile = rank_packed_tiles(cpu, replace(shape, rows=rows))[0]
    return tile.cycles * -(-shape.inner // depth)


def _conv(cpu: CpuFeatures, shape: ConvShape) -> float:
    image = tuple(USUAL if d is None else d for d in shape.image)
    known = replace(shape, image=image)
    form = winograd_form(cpu, known)
    if form is not None:
        return winograd_operations(cpu, form, known) / 2
    depth = integer_depth(cpu) if shape.integer else 1
    steps = -(-shape.channels // depth) * prod(shape.kernel)
    height, width = plane_of(known)
    planes = prod(image) // max(1, (height or 1) * (width or 1))
    return rank_conv_tiles(cpu, known)[0].cycles * steps * shape.group * planes
