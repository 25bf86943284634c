"""The hardware protocol for CPUs: what passes may ask about the target (see ``ir.hardware``)."""

from __future__ import annotations

from dataclasses import dataclass

from ...ir.choices import KernelShape
from ...ir.costs import Demand, usual
from ...ir.graph import Graph, Node
from ...ir.hardware import GenericHardware
from .features import CpuFeatures
from .kernel_shapes import kernel_shape
from .layouts import CpuLayouts
from .speed import rates, template_seconds


@dataclass(frozen=True, kw_only=True)
class CpuHardware(GenericHardware):
    """A CPU's answers; ``templates`` are the keys of the ops that it has templates for."""

    cpu: CpuFeatures
    templates: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, layouts: CpuLayouts, cores: int = 1, templates: frozenset[str] = frozenset()
    ) -> CpuHardware:
        """The answers of the CPU that ``layouts`` are for."""
        cpu = layouts.cpu
        return cls(layouts=layouts, cores=cores, rates=rates(cpu), cpu=cpu, templates=templates)

    def wants(self, op_key: str) -> bool:
        return op_key in self.templates

    def strides_rows(self, anchor: Node) -> bool:
        return anchor.key == "kiln.Attention"

    def seconds(self, region: Graph) -> float:
        """The time of ``region`` on one core, of one run.

        It is the cost model's time of the register tiles, or that of moving the region's inputs
        and outputs where this is longer. Where no template applies it is the roofline's.
        """
        shapes = [(n, kernel_shape(region, n)) for n in region.nodes if n.key in self.templates]
        sums = sum(self._seconds(node, shape) for node, shape in shapes if shape is not None)
        if not sums:
            return super().seconds(region)
        return max(sums, usual(Demand(region).moved_bytes()) / self.rates.bandwidth)

    def _seconds(self, node: Node, shape: KernelShape) -> float:
        """The time of one node's sums; the shape of a convolution describes a single image."""
        images = usual(node.out().shape[0]) if node.key == "kiln.ConvBlocked" else 1
        return images * template_seconds(self.cpu, shape)


__all__ = ["CpuHardware"]
