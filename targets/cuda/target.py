"""The CUDA target: kernels for NVIDIA GPUs, compiled by nvcc, launched from host code."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from tvm import tirx

from ...ir.graph import Graph
from ...ir.hardware import GenericHardware
from ..base import KernelPlan, TargetError, TargetInfo
from ..cpu.features import CpuFeatures, host_features
from ..cpu.target import CpuTarget
from ..generic.choice import choose_template
from ..generic.region import lower_region, lower_sizes
from ..tir.gpu_loops import GpuLoops

DEFAULT = "sm_80"


@dataclass(frozen=True)
class CudaTarget:
    """One GPU architecture, such as ``sm_90``, and the CPU that launches its kernels."""

    arch: str
    cpu: CpuFeatures

    @classmethod
    def parse(cls, detail: str) -> CudaTarget:
        """``sm_NN`` or nothing; raises :class:`TargetError` otherwise, or where nvcc is missing."""
        arch = detail or DEFAULT
        if not re.fullmatch(r"sm_\d{2,3}[a-z]?", arch):
            raise TargetError(f"CUDA architecture {arch!r} is not of the form sm_90")
        if shutil.which("nvcc") is None:
            raise TargetError("compiling for CUDA needs nvcc on the path")
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
        return GenericHardware()

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

    def tvm_target(self) -> Any:
        return self._tvm_target

    @cached_property
    def _tvm_target(self) -> Any:
        import tvm

        host = {"kind": "llvm", "mcpu": self.cpu.mcpu, "mtriple": self.cpu.triple}
        return tvm.target.Target({"kind": "cuda", "arch": self.arch, "host": host})

    def plan(self, region: Graph) -> KernelPlan:
        return KernelPlan(reason=choose_template(region, {}, self.hardware).reason)

    def kernel(self, region: Graph, name: str) -> tirx.PrimFunc:
        return lower_region(region, name, GpuLoops())

    def sizes_kernel(self, region: Graph, name: str) -> tirx.PrimFunc:
        return lower_sizes(region, name, GpuLoops())
