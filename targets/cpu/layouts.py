"""Blocked layouts, tiles and algorithms for a CPU's kernels: the answers to the layout pass."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from ...errors import GraphkilnError
from ...ir.choices import DIRECT, Choice, KernelShape, ProductShape, shape_key
from .candidates import possible_choices
from .dot import WordDot, activation_type, integer_depth, rank_packed_tiles
from .features import CpuFeatures
from .positions import rank_conv_tiles
from .speed import listed_seconds, template_seconds
from .winograd_choice import rank_winograd_tiles, winograd_form

_GAIN = 0.85
"""Steps are listed if they are estimated to take this share of the time of all, or less."""
_SUMS = 12
"""Registers for a recurrent layer's sums. Of 16, as on the smallest targets, 4 hold operands."""
_LATENCY = 4
"""Cycles until the result of a multiply-add can be added to."""
_BROADCAST = 1
"""Cycles of loading an operand into all lanes."""


class ChoiceError(GraphkilnError, ValueError):
    """The database names a tile or an algorithm that does not exist for this kernel."""


Lookup: TypeAlias = Callable[[KernelShape], Choice | None]
"""Gives the choice that was measured to be the fastest for a shape; None where none was."""


def nothing_known(_shape: KernelShape) -> Choice | None:
    """The lookup that leaves everything to the cost model."""
    return None


@dataclass(frozen=True)
class CpuLayouts:
    """Layouts for ``cpu``: a block is one SIMD register, and tiles fill the registers.

    Choices come from ``lookup``, or from the cost model where that knows nothing.
    """

    cpu: CpuFeatures
    lookup: Lookup = nothing_known

    @property
    def block(self) -> int:
        """Channels of a block: the float32 lanes of a register."""
        return self.cpu.lanes

    @property
    def storage_types(self) -> tuple[str, ...]:
        """Types that kernels only load and store: they compute float16 in float32."""
        return ("float16",)

    @property
    def dot_depth(self) -> int:
        """Products that a dot product of 8-bit integers sums into one lane: 4, or 1 without one."""
        return integer_depth(self.cpu)

    @property
    def winograd_depth(self) -> int:
        """The same for Winograd convolutions, which multiply 16-bit integers."""
        return WordDot.depth

    @property
    def depthwise_depth(self) -> int:
        """The same for depthwise convolutions: 4 where a single instruction sums four products.

        It is 1 without such an instruction; ``madd`` sums pairs only.
        """
        return 4 if self.cpu.dot in ("vnni", "sdot") else 1

    @property
    def activation(self) -> str | None:
        """The 8-bit type that dot products take beside int8 weights; None where either will do."""
        return activation_type(self.cpu)

    @property
    def pair_limit(self) -> int | None:
        """128 where pairs of products are summed in 16 bits: 255 * 128 is less than 2**15."""
        return 128 if self.cpu.dot == "madd" else None

    @property
    def fewest_filters(self) -> int:
        """The fewest filters for which a convolution is blocked: more than a quarter of a block.

        With fewer of them most lanes would be padding, and vectors of positions are faster.
        """
        return self.block // 4 + 1

    def lists_steps(self, shape: KernelShape, share: float) -> bool:
        """Is a kernel that does only a ``share`` of all steps clearly faster, by the cost model?"""
        return listed_seconds(self.cpu, shape, share) < _GAIN * template_seconds(self.cpu, shape)

    def recurrent_tile(self, gates: int, hidden: int, batch: int) -> int:
        """How many hidden elements a register tile of a recurrent layer holds for each gate.

        The tile with the fewest estimated cycles is taken. One step of the reduction does a
        multiply-add into each sum, ``gates`` times the vectors of the tile. It takes at least the
        latency of a multiply-add, since the next step adds to the same sums: with two sums and a
        latency of 4 cycles, half of the time is lost. On the other hand the sums of up to four
        sequences must leave registers for operands, so an LSTM (4 gates) of batch 1 has at most
        ``12 // 4 = 3`` vectors.
        """
        wanted = -(-hidden // self.block)
        limit = max(1, _SUMS // (gates * min(max(batch, 1), 4)))

        def cycles(vectors: int) -> int:
            return -(-wanted // vectors) * (max(gates * vectors, _LATENCY) + _BROADCAST)

        return self.block * min(range(1, limit + 1), key=lambda v: (cycles(v), v))

    def choose(self, shape: KernelShape) -> Choice:
        """The measured choice for a shape, or else the cost model's.

        Raises :class:`ChoiceError` for a measured choice that this CPU's kernels do not have.
        """
        found = self.lookup(shape)
        if found is None:
            return self.estimate(shape)
        if all(found not in choices for choices in possible_choices(self.cpu, shape)):
            raise ChoiceError(f"{found} is remembered for {shape_key(shape)}, which has no such")
        return found

    def estimate(self, shape: KernelShape) -> Choice:
        """The cost model's choice: the algorithm with fewer operations, and its cheapest tile."""
        form = None if isinstance(shape, ProductShape) else winograd_form(self.cpu, shape)
        if isinstance(shape, ProductShape):
            ranked = rank_packed_tiles(self.cpu, shape)
        elif form is None:
            ranked = rank_conv_tiles(self.cpu, shape)
        else:
            ranked = rank_winograd_tiles(self.cpu, shape, form)
        algorithm = DIRECT if form is None else form.name
        return Choice(ranked[0].vectors * self.cpu.lanes, algorithm)
