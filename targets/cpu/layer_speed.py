"""Estimates of how long a layer takes on one core, in floats and in bytes, by which quantization
decides. The constants were fitted to profiles of networks on a CPU with AVX-512 and VNNI, and on
the same one with AVX2 only.
"""

from __future__ import annotations

from math import prod

from ...ir.layer_work import LayerWork
from ...ir.windows import ConvShape
from .features import CpuFeatures
from .speed import BANDWIDTH, CLOCK, template_seconds
from .winograd_choice import winograd_form

_NARROWING = {64: 1.5}
"""Cycles by which rounding a vector of sums to bytes takes longer than storing it in floats, by the
bytes of a register: AVX-512 has an instruction that narrows four times."""
_SHUFFLES = 3.0
"""The same for smaller registers, which take several instructions."""
_JOINING = 10.0
"""Cycles to store and load a vector of int32 sums, and to add it to others in float64."""
_TAP, _FOUR_TAPS = 0.5, 1.5
"""Cycles of a depthwise kernel's step, for a vector of single elements and for dot products of four
columns, which are shuffled first."""
_STRIDED = 2.0
"""Steps of a depthwise kernel take so many times as long if it skips positions."""
_WINOGRAD, _WHOLE_WINOGRAD = 1.3, 1.45
"""Winograd convolutions of floats and of bytes take so many times as long as their operations, at
least, since their transformed images do not stay in the caches."""


def layer_seconds(cpu: CpuFeatures, work: LayerWork) -> float | None:
    """The time of the sums, or that of the bytes from memory where this is longer.

    What is read has been written before; it comes from memory as far as the second-level cache does
    not hold it. None for bytes where the CPU has no dot products of them. No product counts twice:
    weights that are quantized may be chosen so.
    """
    if work.is_integer and cpu.dot is None:
        return None
    size = 1 if work.is_integer else 4
    moved = size * work.weights + max(0, 2 * size * work.read - cpu.l2)
    return max(work.images * _sums(cpu, work), moved / BANDWIDTH)


def rounding_seconds(cpu: CpuFeatures, elements: int) -> float:
    """By how much the kernel that computes so many numbers takes longer if it rounds them."""
    cycles = _NARROWING.get(cpu.vector_bytes, _SHUFFLES)
    return elements / cpu.lanes * cycles / CLOCK


def joining_seconds(cpu: CpuFeatures, elements: int) -> float:
    """How long it takes to store so many sums of one byte, and to join them with the others."""
    return elements / cpu.lanes * _JOINING / CLOCK


def _sums(cpu: CpuFeatures, work: LayerWork) -> float:
    """Seconds for one image."""
    shape = work.shape
    if isinstance(shape, ConvShape) and shape.channels == 1 and shape.group > 1:
        return _depthwise(cpu, shape) / CLOCK
    seconds = template_seconds(cpu, shape)
    if isinstance(shape, ConvShape) and winograd_form(cpu, shape) is not None:
        return seconds * (_WHOLE_WINOGRAD if work.is_integer else _WINOGRAD)
    return seconds


def _depthwise(cpu: CpuFeatures, shape: ConvShape) -> float:
    """Cycles of a depthwise convolution of one image."""
    vectors = -(-shape.group * shape.filters // cpu.lanes) * prod(d or 1 for d in shape.image)
    rows, width = prod(shape.kernel[:-1]), shape.kernel[-1]
    fours = shape.integer and cpu.dot != "madd" and shape.dilations[-1] == 1
    steps = rows * -(-width // 4) * _FOUR_TAPS if fours else rows * width * _TAP
    strided = any(s > 1 for s in shape.strides)
    return vectors * steps * (_STRIDED if strided else 1.0)


__all__ = ["joining_seconds", "layer_seconds", "rounding_seconds"]
