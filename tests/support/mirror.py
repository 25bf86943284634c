"""A third target, of tests alone: a device beside the host, with memory and kernels of its own.

Its kernels are the CPU's, but their tensors must be in the memory space ``mirror``, whose DLPack
number is not the host's. Nothing of the package knows of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from graphkiln import targets
from graphkiln.ir.graph import Graph, Node
from graphkiln.ir.hardware import GenericHardware
from graphkiln.runtime import ArtifactError, Device, devices, register_device
from graphkiln.targets import parse_target, register_target
from graphkiln.targets.base import (
    Kernel,
    KernelCompiler,
    KernelPlan,
    Member,
    Parts,
    Services,
    Target,
    TargetInfo,
)

NAME = "mirror"
KIND = "mirror.names"
MEMORY = (1, 7)

Places = Callable[[Graph, Node], bool]


@dataclass(frozen=True)
class MirrorTarget:
    """``places`` says which nodes the device computes; ``space`` is where its tensors are."""

    places: Places = lambda graph, node: True
    space: str = NAME
    host: Target = field(default_factory=lambda: parse_target("cpu"))
    device: str = NAME
    spec: str = NAME
    checks_bounds: bool = False
    keeps_apart: bool = False
    own_kernels: frozenset[str] = frozenset()
    hardware: GenericHardware = GenericHardware()

    @property
    def info(self) -> TargetInfo:
        host = self.host.info
        return TargetInfo(NAME, self.spec, host.triple, host.arch, host.features)

    def place(self, graph: Graph, node: Node) -> str:
        return self.device if self.places(graph, node) else self.host.device

    def tvm_target(self) -> Any:
        return self.host.tvm_target()

    def plan(self, region: Graph) -> KernelPlan:
        return self.host.plan(region)

    def kernel(self, region: Graph, name: str) -> Any:
        return self.host.kernel(region, name)

    def sizes_kernel(self, region: Graph, name: str) -> Any:
        return self.host.sizes_kernel(region, name)

    def require_tools(self) -> None:
        pass

    def check_kernel(self, name: str, function: Any, compiler: KernelCompiler) -> None:
        pass

    def compile_kernel(self, name: str, function: Any, compiler: KernelCompiler) -> bytes:
        return self.host.compile_kernel(name, function, compiler)

    def build(self, kernels: Mapping[str, Kernel], services: Services) -> Parts:
        names = "\n".join(sorted(kernels)).encode()
        objects = services.compile_kernels(kernels, self)
        return Parts(objects, {"mirror.txt": Member(KIND, names)})


class MirrorDevice(Device):
    """Remembers the kernels of loaded models; ``present`` says whether the device is there."""

    name = NAME
    memory = MEMORY
    member_kinds = frozenset({KIND})

    def __init__(self) -> None:
        self.present = True
        self.kernels: set[str] = set()

    def require(self) -> None:
        if not self.present:
            raise ArtifactError("was compiled for a mirror, and this machine has none")

    def attach(self, library: Any, members: Mapping[str, bytes]) -> None:
        for content in members.values():
            self.kernels.update(content.decode().split())


@contextmanager
def mirrored(target: MirrorTarget | None = None) -> Iterator[MirrorDevice]:
    """The target and its device are known inside."""
    made = target or MirrorTarget()

    def parse(detail: str, options: Sequence[str]) -> Target:
        return made

    device = MirrorDevice()
    register_target(NAME, parse)
    register_device(device)
    try:
        yield device
    finally:
        del targets._registered[NAME], devices._registered[NAME]
        parse_target.cache_clear()
