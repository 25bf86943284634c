"""The CPU target: templates where one fits, the generic schedule for all else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, ClassVar

from tvm import tirx

from ...contract import HOST, MOST_THREADS
from ...ir.graph import Graph, Node
from ...machine import usable_cores
from ..base import (
    LLVM_LEVEL,
    Kernel,
    KernelCompiler,
    KernelPlan,
    OptionValues,
    Parts,
    Services,
    TargetInfo,
)
from ..generic.choice import choose_template, product_operands
from ..generic.coalesce import coalesce
from ..generic.region import lower_region, lower_sizes
from ..generic.registry import Template
from ..tir.byte_tables import BYTE_TABLES, PERMUTED, SHUFFLED, SINGLE
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
from .matmul_nbits import matmul_nbits
from .recurrent import recurrent_templates

_LEVEL = "llvm_level"
"""The attribute of functions that says at which level LLVM compiles them."""


def _has_layout(node: Node, region: Graph) -> bool:
    """Are there packed kernels for the element types of a node, so that the layout pass chose?"""
    types = {v.dtype for v in product_operands(region, node)}
    return types <= {"float32"} or types <= {"int8", "uint8"}


@dataclass(frozen=True)
class CpuTarget:
    """One CPU model."""

    OPTIONS: ClassVar[Mapping[str, OptionValues]] = {
        "cores": range(1, MOST_THREADS + 1), "check": ("bounds",), "memory": ("apart",),
    }  # fmt: skip
    """What may follow its name, and each option's values."""

    features: CpuFeatures
    checks_bounds: bool = False
    keeps_apart: bool = False
    cores: int = field(default_factory=usable_cores)
    """For how many cores work is cut into tasks; the code is right for any number of threads."""

    @classmethod
    def parse(cls, detail: str, options: Mapping[str, str]) -> CpuTarget:
        cores = int(options["cores"]) if "cores" in options else usable_cores()
        return cls(features_of(detail), "check" in options, "memory" in options, cores)

    @property
    def spec(self) -> str:
        check = ",check=bounds" if self.checks_bounds else ""
        memory = ",memory=apart" if self.keeps_apart else ""
        return f"{self.features.target},cores={self.cores}{check}{memory}"

    @property
    def info(self) -> TargetInfo:
        f = self.features
        return TargetInfo("cpu", self.spec, f.triple, f.arch, f.required)

    @property
    def layouts(self) -> CpuLayouts:
        """What the layout pass asks."""
        return CpuLayouts(self.features, partial(find_shipped, self.features.target))

    @property
    def hardware(self) -> CpuHardware:
        return CpuHardware.of(self.layouts, self.cores, self._templates)

    @cached_property
    def _templates(self) -> dict[str, Template]:
        return {
            "kiln.ConvBlocked": conv_blocked(self.features),
            "kiln.DepthwiseBlocked": depthwise_blocked(self.features),
            "kiln.MatMulPacked": matmul_packed(self.features),
            "kiln.Attention": attention(self.features),
            "MatMul": matmul(self.features),
            "com.microsoft.MatMulNBits": matmul_nbits(self.features),
            **recurrent_templates(self.features),
        }

    @property
    def _loops(self) -> CpuLoops:
        return CpuLoops(self.cores, self.features.vector_bytes)

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
        simple = coalesce(flatten_pointwise(region))
        choice = choose_template(simple, self._templates, self.hardware)
        if choice.anchor is not None:
            key = choice.anchor.key
            details = self._templates[key].details(simple, choice.anchor)
            return KernelPlan(key, algorithm=details.algorithm, tile=details.tile)
        if choice.plain is not None and _has_layout(choice.plain, simple):
            key = choice.plain.key
            return KernelPlan(reason=f"the layout pass left this {key} (--explain layout says why)")
        return KernelPlan(reason=choice.reason)

    def kernel(self, region: Graph, name: str) -> tirx.PrimFunc:
        simple = coalesce(flatten_pointwise(region))
        function = lower_region(simple, name, self._loops, self._templates, self.hardware)
        function = function.with_attr(BYTE_TABLES, self._byte_tables)
        anchor = choose_template(simple, self._templates, self.hardware).anchor
        level = LLVM_LEVEL if anchor is None else self._templates[anchor.key].level
        return function.with_attr(_LEVEL, level)

    @property
    def _byte_tables(self) -> str:
        """How vectors of bytes are looked up."""
        required = self.features.required
        return PERMUTED if "avx512vbmi" in required else SHUFFLED if "avx2" in required else SINGLE

    def sizes_kernel(self, region: Graph, name: str) -> tirx.PrimFunc:
        return lower_sizes(region, name, self._loops)

    def require_tools(self) -> None:
        """TVM brings LLVM along."""

    def check_kernel(self, name: str, function: tirx.PrimFunc, compiler: KernelCompiler) -> None:
        """LLVM takes whatever function there is."""

    def compile_kernel(self, name: str, function: tirx.PrimFunc, compiler: KernelCompiler) -> bytes:
        level = int(function.attrs.get(_LEVEL, LLVM_LEVEL))
        return compiler.object_file(compiler.compile({name: function}, self, level))

    def build(self, kernels: Mapping[str, Kernel], services: Services) -> Parts:
        return Parts(services.compile_kernels(kernels, self))
