"""Which blocked layouts this CPU's kernels work on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ...errors import GraphkilnError
from ...ir.choices import DIRECT, Choice, KernelShape, ProductShape, shape_key
from .candidates import possible_choices
from .dot import activation_type, integer_depth
from .features import CpuFeatures
from .positions import rank_conv_tiles
from .tiling import rank_product_tiles, rank_winograd_tiles
from .winograd import image_tiles, winograd_form

_SUMS = 12
"""Registers of a recurrent layer's sums: of the 16 that the smallest targets have, 4 are left."""
_LATENCY = 4
"""Cycles until the result of a multiply-add can be added to."""
_BROADCAST = 1
"""Cycles of loading an operand into all lanes."""


class ChoiceError(GraphkilnError, ValueError):
    """What is remembered of a kernel makes no sense."""


Lookup: TypeAlias = Callable[[KernelShape], Choice | None]
"""What is known to be the fastest for a shape, if anything is."""


def nothing_known(_shape: KernelShape) -> Choice | None:
    """The lookup that leaves everything to the cost model."""
    return None


@dataclass(frozen=True)
class CpuLayouts:
    """Blocks of one SIMD register; tiles by the register file."""

    cpu: CpuFeatures
    lookup: Lookup = nothing_known

    @property
    def block(self) -> int:
        """Channels of a block: the float32 lanes of a register."""
        return self.cpu.lanes

    @property
    def storage_types(self) -> tuple[str, ...]:
        """Kernels compute float16 in float32."""
        return ("float16",)

    @property
    def dot_depth(self) -> int:
        """Neighbours that a dot product of 8-bit integers takes."""
        return integer_depth(self.cpu)

    @property
    def depthwise_depth(self) -> int:
        """Four where one instruction sums four products."""
        return 4 if self.cpu.dot in ("vnni", "sdot") else 1

    @property
    def activation(self) -> str | None:
        """The 8-bit type that dot products take beside int8 weights."""
        return activation_type(self.cpu)

    @property
    def fewest_filters(self) -> int:
        """More than a quarter of a block: below, vectors of positions are better."""
        return self.block // 4 + 1

    def recurrent_tile(self, gates: int, hidden: int, batch: int) -> int:
        """The vectors of hidden elements that cost the fewest cycles, in elements.

        A step over one input element does a multiply-add for each sum in registers, ``gates`` times
        the vectors of the block, and takes at least the latency of a multiply-add, after which the
        same sums can be added to again: a block with few sums wastes part of that. The sums, those
        of four sequences at most, must leave registers for operands.
        """
        wanted = -(-hidden // self.block)
        limit = max(1, _SUMS // (gates * min(max(batch, 1), 4)))

        def cycles(vectors: int) -> int:
            return -(-wanted // vectors) * (max(gates * vectors, _LATENCY) + _BROADCAST)

        return self.block * min(range(1, limit + 1), key=lambda v: (cycles(v), v))

    def choose(self, shape: KernelShape) -> Choice:
        """What was found to be fastest, or else the cost model's choice."""
        found = self.lookup(shape)
        if found is None:
            return self.estimate(shape)
        if all(found not in choices for choices in possible_choices(self.cpu, shape)):
            raise ChoiceError(f"{found} is remembered for {shape_key(shape)}, which has no such")
        return found

    def estimate(self, shape: KernelShape) -> Choice:
        """The cost model's choice."""
        form = None if isinstance(shape, ProductShape) else winograd_form(shape, self.cpu.lanes)
        if isinstance(shape, ProductShape):
            ranked = rank_product_tiles(self.cpu, shape.rows, shape.columns)
        elif form is None:
            ranked = rank_conv_tiles(self.cpu, shape)
        else:
            ranked = rank_winograd_tiles(self.cpu, image_tiles(form, shape), shape.filters)
        algorithm = DIRECT if form is None else form.name
        return Choice(ranked[0].vectors * self.cpu.lanes, algorithm)
