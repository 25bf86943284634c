"""Which blocked layouts this CPU's kernels work on."""

from __future__ import annotations

from dataclasses import dataclass

from .features import CpuFeatures
from .tiling import choose_tile


@dataclass(frozen=True)
class CpuLayouts:
    """Blocks of one SIMD register; tiles by the register file."""

    cpu: CpuFeatures

    @property
    def block(self) -> int:
        """Channels of a block: the float32 lanes of a register."""
        return self.cpu.lanes

    def conv_tile(self, out_channels: int, width: int | None) -> int:
        """Output channels of one register tile."""
        return self._tile(width, out_channels)

    def matmul_tile(self, rows: int | None, columns: int) -> int:
        """Columns of one register tile."""
        return self._tile(rows, columns)

    def _tile(self, extent: int | None, columns: int) -> int:
        vectors = -(-columns // self.cpu.lanes)
        return choose_tile(self.cpu, extent, vectors).vectors * self.cpu.lanes
