"""The CPU target: templates where one fits, the generic schedule for all else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, ClassVar

from tvm import tirx

from ...contract import HOST
from ...ir.graph import Graph, Node
from ..base import Kernel, KernelCompiler, KernelPlan, Parts, Services, TargetInfo
from ..generic.choice import choose_template
from ..generic.coalesce import coalesce
from ..generic.region import lower_region, lower_sizes
from ..generic.registry import Template
from ..tir.cpu_loops import CpuLoops
from .attention import attention
from .conv import conv_blocked
from .database import find_shipped
from .depthwise import depthwise_blocked
from .features import CpuFeatures, features_of
from .flatten import flatten_pointwise
from .hardware import CpuHardware
from .layouts import CpuLayouts
from .matmul import matmul_packed
from .matmul_dynamic import matmul
from .recurrent import recurrent_templates


def _has_layout(node: Node, region: Graph) -> bool:
    """Are there packed kernels for the element types of a node, so that the layout pass chose?"""
    values = [v for v in region.inputs_of(node)[:2] if v is not None]
    return all(v.dtype in ("float32", "int8", "uint8") for v in values)


@dataclass(frozen=True)
class CpuTarget:
    """One CPU model."""

    OPTIONS: ClassVar[Mapping[str, tuple[str, ...]]] = {"check": ("bounds",), "memory": ("apart",)}
    """What may follow its name, and each option's values."""

    features: CpuFeatures
    checks_bounds: bool = False
    keeps_apart: bool = False

    @classmethod
    def parse(cls, detail: str, options: Mapping[str, str]) -> CpuTarget:
        return cls(features_of(detail), "check" in options, "memory" in options)

    @property
    def spec(self) -> str:
        check = ",check=bounds" if self.checks_bounds else ""
        memory = ",memory=apart" if self.keeps_apart else ""
        return f"{self._cpu}{check}{memory}"

    @property
    def _cpu(self) -> str:
        return f"cpu:{self.features.name}"

    @property
    def info(self) -> TargetInfo:
        f = self.features
        return TargetInfo("cpu", self.spec, f.triple, f.arch, f.required)

    @property
    def layouts(self) -> CpuLayouts:
        """What the layout pass asks."""
        return CpuLayouts(self.features, partial(find_shipped, self._cpu))

    @property
    def hardware(self) -> CpuHardware:
        return CpuHardware(self.layouts, self.own_kernels)

    @cached_property
    def _templates(self) -> dict[str, Template]:
        return {
            "kiln.ConvBlocked": conv_blocked(self.features),
            "kiln.DepthwiseBlocked": depthwise_blocked(self.features),
            "kiln.MatMulPacked": matmul_packed(self.features),
            "kiln.Attention": attention(self.features),
            "MatMul": matmul(self.features),
            **recurrent_templates(self.features),
        }

    @property
    def _loops(self) -> CpuLoops:
        return CpuLoops(vector_bytes=self.features.vector_bytes)

    @property
    def own_kernels(self) -> frozenset[str]:
        return frozenset(self._templates)

    @property
    def host(self) -> CpuTarget:
        return self

    @property
    def device(self) -> str:
        return HOST

    @property
    def space(self) -> str:
        return HOST

    def place(self, graph: Graph, node: Node) -> str:
        return HOST

    def tvm_target(self) -> Any:
        return self._tvm_target

    @cached_property
    def _tvm_target(self) -> Any:
        import tvm

        f = self.features
        config: dict[str, Any] = {"kind": "llvm", "mcpu": f.mcpu, "mtriple": f.triple}
        if f.mattr:
            config["mattr"] = list(f.mattr)
        return tvm.target.Target(config)

    def plan(self, region: Graph) -> KernelPlan:
        choice = choose_template(coalesce(flatten_pointwise(region)), self._templates)
        if choice.anchor is not None:
            return KernelPlan(choice.anchor.key)
        if choice.plain is not None and _has_layout(choice.plain, region):
            return KernelPlan(reason=f"the layout pass leaves this {choice.plain.key} as it is")
        return KernelPlan(reason=choice.reason, fallback=bool(choice.reason))

    def kernel(self, region: Graph, name: str) -> tirx.PrimFunc:
        return lower_region(coalesce(flatten_pointwise(region)), name, self._loops, self._templates)

    def sizes_kernel(self, region: Graph, name: str) -> tirx.PrimFunc:
        return lower_sizes(region, name, self._loops)

    def require_tools(self) -> None:
        """TVM brings LLVM along."""

    def check_kernel(self, name: str, function: tirx.PrimFunc, compiler: KernelCompiler) -> None:
        """LLVM takes whatever function there is."""

    def compile_kernel(self, name: str, function: tirx.PrimFunc, compiler: KernelCompiler) -> bytes:
        return compiler.object_file(compiler.compile({name: function}, self))

    def build(self, kernels: Mapping[str, Kernel], services: Services) -> Parts:
        return Parts(services.compile_kernels(kernels, self))
