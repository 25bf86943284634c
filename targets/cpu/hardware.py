"""The hardware protocol for CPUs: what passes may ask about the target (see ``ir.hardware``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ...ir.choices import KernelShape
from ...ir.costs import Demand, usual
from ...ir.graph import Graph, Node
from ...ir.hardware import GenericHardware
from ...ir.layer_work import LayerWork
from ...ir.windows import ConvShape
from ..generic.registry import Template
from .features import CpuFeatures
from .layer_speed import joining_seconds, layer_seconds, rounding_seconds
from .layouts import CpuLayouts
from .speed import rates, template_seconds


@dataclass(frozen=True, kw_only=True)
class CpuHardware(GenericHardware):
    """A CPU's answers; ``templates`` are those that it has, by the keys of their ops."""

    cpu: CpuFeatures
    templates: Mapping[str, Template] = field(default_factory=dict)

    @classmethod
    def of(
        cls, layouts: CpuLayouts, cores: int = 1, templates: Mapping[str, Template] | None = None
    ) -> CpuHardware:
        """The answers of the CPU that ``layouts`` are for."""
        cpu = layouts.cpu
        return cls(
            layouts=layouts, cores=cores, rates=rates(cpu), cpu=cpu, templates=templates or {}
        )

    def wants(self, op_key: str) -> bool:
        return op_key in self.templates

    def strides_rows(self, anchor: Node) -> bool:
        return anchor.key == "kiln.Attention"

    def seconds(self, region: Graph) -> float:
        """The time of ``region`` on one core, of one run.

        It is the cost model's time of the register tiles, or that of moving the region's inputs
        and outputs where this is longer. Where no template applies it is the roofline's.
        """
        known = [(n, self.templates[n.key]) for n in region.nodes if n.key in self.templates]
        sums = sum(self._seconds(n, t.shape(region, n)) for n, t in known if t.shape is not None)
        if not sums:
            return super().seconds(region)
        return max(sums, usual(Demand(region).moved_bytes()) / self.rates.bandwidth)

    def layer_seconds(self, work: LayerWork) -> float | None:
        return layer_seconds(self.cpu, work)

    def rounding_seconds(self, elements: int) -> float | None:
        return rounding_seconds(self.cpu, elements)

    def joining_seconds(self, elements: int) -> float | None:
        return joining_seconds(self.cpu, elements)

    def _seconds(self, node: Node, shape: KernelShape) -> float:
        """The time of one node's sums; the shape of a convolution describes a single image."""
        images = usual(node.out().shape[0]) if isinstance(shape, ConvShape) else 1
        return images * template_seconds(self.cpu, shape)


__all__ = ["CpuHardware"]
