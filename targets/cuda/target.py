"""The CUDA target: kernels for NVIDIA GPUs, compiled by nvcc, launched from host code."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tvm import tirx

from ...contract import CUDA_MODULES, join_texts, split_texts
from ...ir.costs import Rates
from ...ir.graph import Graph, Node
from ...ir.hardware import GenericHardware
from ..base import (
    Kernel,
    KernelCompiler,
    KernelPlan,
    Member,
    Parts,
    Services,
    TargetError,
    TargetInfo,
)
from ..cpu.features import CpuFeatures, host_features
from ..cpu.target import CpuTarget
from ..generic.choice import choose_template
from ..generic.region import lower_region, lower_sizes
from ..tir.gpu_loops import GpuLoops
from .device_code import device_code
from .lowering import register_rules

DEFAULT = "sm_80"

MULTIPROCESSORS = 108
RATES = Rates({"float32": 40e9, "float64": 20e9, "int8": 40e9}, 90e9, 14e9)
"""What plain kernels make of one multiprocessor of an A100, about: there are no templates, so sums
of products reach a fraction of its 180 GFLOP/s."""


@dataclass(frozen=True)
class CudaTarget:
    """One GPU architecture, such as ``sm_90``, and the CPU that launches its kernels."""

    arch: str
    cpu: CpuFeatures

    @classmethod
    def parse(cls, detail: str) -> CudaTarget:
        """``sm_NN`` or nothing; raises :class:`TargetError` otherwise."""
        arch = detail or DEFAULT
        if not re.fullmatch(r"sm_\d{2,3}[a-z]?", arch):
            raise TargetError(f"CUDA architecture {arch!r} is not of the form sm_90")
        return cls(arch, host_features())

    @property
    def spec(self) -> str:
        return f"cuda:{self.arch}"

    @property
    def info(self) -> TargetInfo:
        h = self.cpu
        return TargetInfo("cuda", self.spec, h.triple, h.arch, h.required)

    @property
    def hardware(self) -> GenericHardware:
        """No blocked layouts: kernels work on plain ones."""
        return GenericHardware(cores=MULTIPROCESSORS, rates=RATES)

    @property
    def checks_bounds(self) -> bool:
        return False

    @property
    def keeps_apart(self) -> bool:
        return False

    @property
    def own_kernels(self) -> frozenset[str]:
        return frozenset()

    @property
    def host(self) -> CpuTarget:
        return CpuTarget(self.cpu)

    @property
    def device(self) -> str:
        return "cuda"

    @property
    def space(self) -> str:
        return "cuda"

    def place(self, graph: Graph, node: Node) -> str:
        return self.device

    def tvm_target(self) -> Any:
        return self._tvm_target

    @cached_property
    def _tvm_target(self) -> Any:
        import tvm

        register_rules()
        host = {"kind": "llvm", "mcpu": self.cpu.mcpu, "mtriple": self.cpu.triple}
        return tvm.target.Target({"kind": "cuda", "arch": self.arch, "host": host})

    def plan(self, region: Graph) -> KernelPlan:
        return KernelPlan(reason=choose_template(region, {}, self.hardware).reason)

    def kernel(self, region: Graph, name: str) -> tirx.PrimFunc:
        return lower_region(region, name, GpuLoops())

    def sizes_kernel(self, region: Graph, name: str) -> tirx.PrimFunc:
        return lower_sizes(region, name, GpuLoops())

    def require_tools(self) -> None:
        if shutil.which("nvcc") is None:
            raise TargetError("compiling for CUDA needs nvcc on the path")

    def check_kernel(self, name: str, function: tirx.PrimFunc, compiler: KernelCompiler) -> None:
        """As far as CUDA source: threads cannot allocate, and the host not read a GPU's memory."""
        compiler.compile({name: function}, self)

    def compile_kernel(self, name: str, function: tirx.PrimFunc, compiler: KernelCompiler) -> bytes:
        """The object file of what launches the kernel, and the device code that it launches."""
        library = compiler.compile({name: function}, self)
        return join_texts([compiler.object_file(library), *device_code(library, self.arch)])

    def build(self, kernels: Mapping[str, Kernel], services: Services) -> Parts:
        if not kernels:
            return Parts()
        built = services.compile_kernels(kernels, self)
        found = {name: split_texts(data) for name, data in built.items()}
        modules = join_texts([module for _, *modules in found.values() for module in modules])
        launchers = {name: launcher for name, (launcher, *_) in found.items()}
        return Parts(launchers, {"cuda.bin": Member(CUDA_MODULES, modules)})
