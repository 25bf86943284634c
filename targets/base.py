"""What every target offers to the code generator, and the names users spell targets by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import GraphkilnError
from ..ir.graph import Graph

if TYPE_CHECKING:
    from tvm import tirx


class TargetError(GraphkilnError, ValueError):
    """A target's name or its options are not understood."""


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
    def own_kernels(self) -> frozenset[str]:
        """Keys of the ops that the target has kernels of its own for."""
        ...

    @property
    def layouts(self) -> Any:
        """The blocked layouts that passes may use (``passes.target.Layouts``), or None."""
        ...

    def tvm_target(self) -> Any:
        """The ``tvm.target.Target`` that kernels are built for."""
        ...

    def kernel(self, region: Graph, name: str) -> tirx.PrimFunc:
        """The function of a region: parameters are its inputs, outputs, then its symbols."""
        ...

    def sizes_kernel(self, region: Graph, name: str) -> tirx.PrimFunc:
        """The function that computes the data-dependent dims of a one-node region."""
        ...
