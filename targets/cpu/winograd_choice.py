"""Whether a convolution pays in one of Winograd's forms, and by which register tiles."""

from __future__ import annotations

from collections.abc import Mapping

from ...ir.short_sums import BITS
from ...ir.windows import ConvShape
from .dot import Dot, WordDot, dot_of, integer_depth
from .features import CpuFeatures
from .packing import tiles_of
from .tiling import SINGLE, Tile, rank_tiles, rows_cover, streamed_cycles
from .winograd_forms import FORMS, WHOLE_FORMS, Form

_MARGIN = 1.15
"""A direct convolution must take so many times more operations than Winograd's to be replaced."""
_SPLIT = 1.2
"""Steps of a direct convolution by sums of pairs, with those that are done twice where weights
would saturate: a fifth more, and up to a third, in trained networks. Winograd's has none."""
GUESS = 28
"""Height and width of the image to assume where they are not known."""


def winograd_forms(cpu: CpuFeatures, shape: ConvShape) -> Mapping[str, Form]:
    """The forms by which a convolution can be computed, by their names.

    It must have 3x3 windows in two dims, no groups, strides or dilations, and at least as many
    input channels as vectors have lanes. For 8-bit integers the CPU's own dot products of four
    bytes would be faster, and sums that are too long would overflow.
    """
    if shape.group != 1 or shape.channels < cpu.lanes or len(shape.image) != 2:
        return {}
    if (shape.kernel, shape.strides, shape.dilations) != ((3, 3), (1, 1), (1, 1)):
        return {}
    if not shape.integer:
        return FORMS
    if cpu.dot != "madd":
        return {}
    return {name: form for name, form in WHOLE_FORMS.items() if _holds_sums(form, shape)}


def _holds_sums(form: Form, shape: ConvShape) -> bool:
    """Do the bits that a form leaves hold the sums, which may be known to be short?"""
    left = 32 - (form.growth.bit_length() - 1)
    longest = shape.channels * 9 * 255 * 128
    return longest < 2 ** (left - 1) or (shape.short_sums and left >= BITS)


def winograd_form(cpu: CpuFeatures, shape: ConvShape) -> Form | None:
    """The form with the fewest operations; None for a convolution that is better computed directly.

    Extents that are not known count as :data:`GUESS`.
    """
    forms = winograd_forms(cpu, shape).values()
    if not forms:
        return None
    best = min(forms, key=lambda form: winograd_operations(cpu, form, shape))
    fewer = _direct_operations(cpu, shape) > _MARGIN * winograd_operations(cpu, best, shape)
    return best if fewer else None


def _direct_operations(cpu: CpuFeatures, shape: ConvShape) -> float:
    """Vector operations of a direct convolution of one image, two of which take a cycle."""
    height, width = _extents(shape)
    blocks, vectors = -(-shape.channels // cpu.lanes), -(-shape.filters // cpu.lanes)
    dot = dot_of(cpu, _kind(shape), integer_depth(cpu), cpu.lanes)
    products = height * width * 9 * blocks * cpu.lanes * vectors * _operations_of_product(dot)
    return products * (_SPLIT if cpu.dot == "madd" and shape.integer else 1)


def winograd_operations(cpu: CpuFeatures, form: Form, shape: ConvShape) -> float:
    """Vector operations of a convolution in this form, two of which take a cycle: products and
    transforms of one image.
    """
    blocks, vectors = -(-shape.channels // cpu.lanes), -(-shape.filters // cpu.lanes)
    depth, tiles = blocks * cpu.lanes, image_tiles(form, shape)
    dot = dot_of(cpu, _kind(shape), WordDot.depth, cpu.lanes)
    products = tiles * form.points * depth * vectors * _operations_of_product(dot)
    image = tiles * (blocks + vectors) * form.image_cost
    return products + image + depth * vectors * form.weight_cost / dot.depth


def _kind(shape: ConvShape) -> str:
    return "uint8" if shape.integer else "float32"


def _operations_of_product(dot: Dot) -> float:
    """Vector operations for one product in each lane."""
    return dot.cost.cycles / SINGLE.cycles / dot.depth


def rank_winograd_tiles(cpu: CpuFeatures, shape: ConvShape, form: Form) -> list[Tile]:
    """:func:`rank_tiles` for the products of a Winograd convolution.

    Their rows are the tiles of the image. Each product has weights of its own, so these stream from
    the second-level cache.
    """
    dot = dot_of(cpu, _kind(shape), WordDot.depth, cpu.lanes)
    runs = rows_cover(image_tiles(form, shape))
    return rank_tiles(cpu, runs, -(-shape.filters // cpu.lanes), streamed_cycles, dot.cost)


def image_tiles(form: Form, shape: ConvShape) -> int:
    """How many tiles of the form cover the image."""
    height, width = _extents(shape)
    return int(tiles_of(height, form.outputs) * tiles_of(width, form.outputs))


def _extents(shape: ConvShape) -> tuple[int, ...]:
    return tuple(GUESS if d is None else d for d in shape.image)
