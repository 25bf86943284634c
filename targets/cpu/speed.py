"""Estimates of how long kernels take on one core: by the tiles' cost model, or by nominal rates.

The clock and the bandwidth are nominal, since decisions only compare estimates with each other.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

from ...ir.choices import KernelShape, ProductShape
from ...ir.costs import USUAL, Rates
from ...ir.windows import ConvShape
from .dot import cost_of, integer_depth, rank_packed_tiles
from .features import CpuFeatures
from .positions import image_runs, plane_of, rank_conv_tiles
from .tiling import PER_SCALAR, accumulator_budget, near_cycles, rows_cover
from .winograd_choice import winograd_form, winograd_operations

CLOCK = 2.5e9
"""Cycles in a second."""
BANDWIDTH = 10e9
"""Bytes from and to memory in a second."""
_ENTRY = 1.0
"""Cycles by which a listed step takes longer: its operands have to be found."""
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


def listed_seconds(cpu: CpuFeatures, shape: KernelShape, share: float) -> float:
    """Seconds that the template takes if it does only a ``share`` of the steps, from a list.

    A listed step is that of one vector of columns, so tiles are one vector wide.
    """
    add = cost_of(cpu, shape.operand if isinstance(shape, ProductShape) else _operand(shape))
    most = accumulator_budget(cpu, 1, add)
    if isinstance(shape, ProductShape):
        columns, planes = shape.columns, 1
        runs = rows_cover(USUAL if shape.rows is None else shape.rows)(most)
    else:
        shape = _known(shape)
        columns, planes = shape.filters, shape.group * _planes(shape)
        runs = image_runs(*plane_of(shape), most)
    step = sum(count * (near_cycles(rows, 1, add) + _ENTRY) for rows, count in runs)
    vectors = -(-columns // cpu.lanes)
    return step * share * vectors * _steps(cpu, shape) * planes / CLOCK


def _product(cpu: CpuFeatures, shape: ProductShape) -> float:
    rows = USUAL if shape.rows is None else shape.rows
    tile = rank_packed_tiles(cpu, replace(shape, rows=rows))[0]
    return tile.cycles * _steps(cpu, shape)


def _conv(cpu: CpuFeatures, shape: ConvShape) -> float:
    known = _known(shape)
    form = winograd_form(cpu, known)
    if form is not None:
        return winograd_operations(cpu, form, known) / 2
    tile = rank_conv_tiles(cpu, known)[0]
    return tile.cycles * _steps(cpu, known) * shape.group * _planes(known)


def _operand(shape: ConvShape) -> str:
    return "int8" if shape.integer else "float32"


def _known(shape: ConvShape) -> ConvShape:
    """``shape`` with usual extents in the place of unknown ones."""
    return replace(shape, image=tuple(USUAL if d is None else d for d in shape.image))


def _planes(shape: ConvShape) -> int:
    """Images of rows and columns that a volume has."""
    height, width = plane_of(shape)
    return prod(d or 1 for d in shape.image) // max(1, (height or 1) * (width or 1))


def _steps(cpu: CpuFeatures, shape: KernelShape) -> int:
    """Steps of the reduction."""
    if isinstance(shape, ProductShape):
        return -(-shape.inner // (1 if shape.operand == "float32" else integer_depth(cpu)))
    depth = integer_depth(cpu) if shape.integer else 1
    return -(-shape.channels // depth) * prod(shape.kernel)
