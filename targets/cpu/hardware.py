"""What the CPU target answers to passes."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.graph import Node
from ...ir.hardware import GenericHardware


@dataclass(frozen=True)
class CpuHardware(GenericHardware):
    """A CPU's answers; ``templates`` are the ops that it has kernels of its own for."""

    templates: frozenset[str] = frozenset()

    def wants(self, op_key: str) -> bool:
        return op_key in self.templates

    def strides_rows(self, anchor: Node) -> bool:
        return anchor.key == "kiln.Attention"


__all__ = ["CpuHardware"]
