"""What every target offers to the code generator, and the names users spell targets by."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ..errors import UsageError
from ..ir.graph import Graph, Node
from ..ir.hardware import Hardware

if TYPE_CHECKING:
    from tvm import tirx


class TargetError(UsageError):
    """A target's name or its options are not understood."""


OptionValues: TypeAlias = tuple[str, ...] | range
"""The values that an option may have: words, or whole numbers."""


def parse_options(texts: Sequence[str], known: Mapping[str, OptionValues]) -> dict[str, str]:
    """Options such as ``check=bounds`` by name; ``known`` are the values that each may have.

    Raises :class:`TargetError` for others, and where a name is repeated.
    """
    found: dict[str, str] = {}
    for text in texts:
        name, _, value = text.partition("=")
        if name not in known or not _may_be(value, known[name]):
            takes = ", ".join(f"{n}={v}" for n, values in known.items() for v in _told(values))
            raise TargetError(f"target option {text!r} is not known; known are {takes or 'none'}")
        if name in found:
            raise TargetError(f"target option {name!r} is given twice")
        found[name] = value
    return found


def _may_be(value: str, values: OptionValues) -> bool:
    if isinstance(values, range):
        return value.isascii() and value.isdecimal() and len(value) < 10 and int(value) in values
    return value in values


def _told(values: OptionValues) -> tuple[str, ...]:
    """The values, as a message lists them."""
    return (f"{values[0]} to {values[-1]}",) if isinstance(values, range) else values


@dataclass(frozen=True)
class TargetInfo:
    """What an artifact's manifest says of the machine it needs."""

    kind: str
    name: str
    triple: str
    arch: str
    features: tuple[str, ...]

    def to_manifest(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "triple": self.triple,
            "arch": self.arch,
            "features": list(self.features),
        }


@dataclass(frozen=True)
class KernelPlan:
    """How a kernel is computed: by the ``template`` of an op, or by the generic schedule (empty).

    ``reason`` says why it is the generic one for sums of products, which are slow by it.
    ``algorithm`` and the largest register ``tile`` (rows by columns of the result, such as
    ``14x32``) are those of the template.
    """

    template: str = ""
    reason: str = ""
    algorithm: str = ""
    tile: str = ""


class Kernel(Protocol):
    """A kernel to build, as code generation describes it.

    ``text`` is its region's; ``role`` is ``main``, or ``sizes`` for its data-dependent dims.
    """

    @property
    def text(self) -> str: ...

    @property
    def role(self) -> str: ...

    @property
    def op(self) -> str:
        """A short name of what it computes, for messages."""
        ...

    @property
    def node(self) -> str:
        """The first node that wants it, for messages."""
        ...


@dataclass(frozen=True)
class Member:
    """A further member of an artifact, which the target's device reads where it is loaded.

    Its ``kind`` is the device's name, a dot and a word: ``cuda.modules``.
    """

    kind: str
    content: bytes


@dataclass(frozen=True)
class Parts:
    """What a target contributes to an artifact.

    ``objects`` are object files by the name of the one function that each defines, which are linked
    into the library; ``members`` are further members of the artifact by name.
    """

    objects: Mapping[str, bytes] = field(default_factory=dict)
    members: Mapping[str, Member] = field(default_factory=dict)


def merge_parts(parts: Iterable[Parts]) -> Parts:
    """The parts of one artifact; raises :class:`TargetError` where two give something one name."""
    objects: dict[str, bytes] = {}
    members: dict[str, Member] = {}
    for part in parts:
        for name in (objects.keys() & part.objects) | (members.keys() & part.members):
            raise TargetError(f"two targets contribute {name!r} to an artifact")
        objects |= part.objects
        members |= part.members
    return Parts(objects, members)


LLVM_LEVEL = 3
"""The highest of LLVM's optimisation levels, and the default."""


class KernelCompiler(Protocol):
    """What TVM makes of functions, wherever a kernel is built."""

    def compile(self, functions: Mapping[str, Any], target: Target, level: int = LLVM_LEVEL) -> Any:
        """A ``tvm.runtime.Module`` of PrimFuncs by name: host code, which may import others'.

        ``level`` is LLVM's optimisation level for host code.
        """
        ...

    def object_file(self, library: Any) -> bytes:
        """The host code of a module, without what it imports."""
        ...


class Services(Protocol):
    """What code generation lends to a target that builds an artifact's parts."""

    def compile_kernels(self, kernels: Mapping[str, Kernel], target: Target) -> dict[str, bytes]:
        """What ``target.compile_kernel`` makes of each kernel, by name.

        Kernels that were compiled before come from the cache; others are compiled at the same time
        by several processes. Raises a :class:`graphkiln.GraphkilnError` whose ``blockers`` name the
        node and the op of each kernel that fails.
        """
        ...


class Target(Protocol):
    """Kernels for one kind of hardware.

    A target is rebuilt in worker processes from ``spec``, so it must be determined by it.
    """

    @property
    def spec(self) -> str:
        """The full name, e.g. ``cpu:cascadelake``; ``parse_target(spec)`` gives it back."""
        ...

    @property
    def info(self) -> TargetInfo: ...

    @property
    def host(self) -> Target:
        """The CPU target that launches kernels; the target itself where that is a CPU."""
        ...

    @property
    def device(self) -> str:
        """The runtime's name of the device that the kernels run on."""
        ...

    @property
    def space(self) -> str:
        """The memory space that the kernels' tensors are in.

        It is the device's own, which is called as the device is, or the host's.
        """
        ...

    def place(self, graph: Graph, node: Node) -> str:
        """The device that computes a node which needs a kernel: the target's, or the host.

        Not asked where the target is its own host.
        """
        ...

    @property
    def checks_bounds(self) -> bool:
        """Must kernels check every access (see ``targets.tir.bounds``)?"""
        ...

    @property
    def keeps_apart(self) -> bool:
        """Must every temporary have memory of its own, so that nothing lies beside it?"""
        ...

    @property
    def own_kernels(self) -> frozenset[str]:
        """Keys of the ops that the target has kernels of its own for."""
        ...

    @property
    def hardware(self) -> Hardware:
        """What passes may ask."""
        ...

    def tvm_target(self) -> Any:
        """The ``tvm.target.Target`` that kernels are built for."""
        ...

    def plan(self, region: Graph) -> KernelPlan:
        """How :meth:`kernel` computes a region."""
        ...

    def kernel(self, region: Graph, name: str) -> tirx.PrimFunc:
        """The function of a region: parameters are its inputs, outputs, then its symbols."""
        ...

    def sizes_kernel(self, region: Graph, name: str) -> tirx.PrimFunc:
        """The function that computes the data-dependent dims of a one-node region."""
        ...

    def require_tools(self) -> None:
        """Raises :class:`TargetError` where a program is missing that building needs."""
        ...

    def check_kernel(self, name: str, function: tirx.PrimFunc, compiler: KernelCompiler) -> None:
        """Raises where :meth:`compile_kernel` would, as far as can be known without machine code.

        What a kernel's function can be made for but not compiled is told of by
        :func:`graphkiln.check` then, not only by compiling.
        """
        ...

    def compile_kernel(self, name: str, function: tirx.PrimFunc, compiler: KernelCompiler) -> bytes:
        """One kernel as bytes that may be kept between compilations; only :meth:`build` reads them.

        It may run in a worker process.
        """
        ...

    def build(self, kernels: Mapping[str, Kernel], services: Services) -> Parts:
        """Turn kernels into parts of an artifact."""
        ...


def targets_of(target: Target) -> dict[str, Target]:
    """Who makes kernels for each device that programs of ``target`` run on; the host's is first."""
    return {target.host.device: target.host, target.device: target}
