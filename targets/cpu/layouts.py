"""Which blocked layouts this CPU's kernels work on."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.windows import ConvShape
from .dot import activation_type, integer_depth
from .features import CpuFeatures
from .tiling import choose_tile, product_cycles
from .winograd import winograd_tiles


@dataclass(frozen=True)
class CpuLayouts:
    """Blocks of one SIMD register; tiles by the register file."""

    cpu: CpuFeatures

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

    def conv_tile(self, shape: ConvShape) -> int:
        """Output channels of one register tile."""
        rows = winograd_tiles(shape, self.cpu.lanes) or shape.image[-1]
        return self._tile(rows, shape.filters)

    def matmul_tile(self, rows: int | None, columns: int) -> int:
        """Columns of one register tile."""
        vectors = -(-columns // self.cpu.lanes)
        return choose_tile(self.cpu, rows, vectors, product_cycles).vectors * self.cpu.lanes

    def _tile(self, extent: int | None, columns: int) -> int:
        vectors = -(-columns // self.cpu.lanes)
        return choose_tile(self.cpu, extent, vectors).vectors * self.cpu.lanes
