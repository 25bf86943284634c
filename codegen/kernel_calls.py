"""Calls of kernels: each kernel once, its arguments, and memory for its results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..contract import HOST
from ..ir.graph import Graph
from ..ir.storage import storage_name
from ..ir.types import TensorType
from ..targets.base import Target
from .dim_slots import DimSlots, size_of
from .kernels import KernelSpec, kernel_spec
from .program import AllocStorage, Call, Kill, MakeTensor, Reg, Transfer
from .program_builder import ProgramBuilder


class KernelCalls:
    """The distinct ``kernels`` that a program needs, by name, and the ``calls`` of each.

    A call is recorded as a spec whose ``node`` and ``origins`` are those of the caller. Calls that
    the program makes for itself, such as adding 1 to a loop's counter, have no node. ``targets``
    make the kernels for each device.
    """

    def __init__(
        self, builder: ProgramBuilder, dims: DimSlots, targets: Mapping[str, Target], version: str
    ) -> None:
        self.kernels: dict[str, KernelSpec] = {}
        self.calls: dict[str, list[KernelSpec]] = {}
        self._builder = builder
        self._dims = dims
        self._targets = targets
        self._version = version

    def allocate(self, t: TensorType, space: str = HOST) -> Reg:
        """A new tensor in storage of its own, which lives as long as registers hold it."""
        storage, reg = self._builder.new_reg(), self._builder.new_reg()
        self._builder.use_space(space)
        self._builder.emit(AllocStorage(storage, self._dims.of(size_of(t)), space))
        self.place(reg, storage, 0, t)
        self._builder.emit(Kill(storage))
        return reg

    def place(self, reg: Reg, storage: Reg, offset: int, t: TensorType) -> None:
        """Make ``reg`` a tensor at a byte offset of a storage."""
        shape, dtype = self._dims.shape(t), storage_name(t.dtype.name)
        self._builder.emit(MakeTensor(reg, storage, offset, shape, dtype))

    def call(self, spec: KernelSpec, inputs: Sequence[Reg], outputs: Sequence[Reg]) -> None:
        """Call a kernel, which writes to the tensors in ``outputs``."""
        name = spec.name(self._made_for(spec.device), self._version)
        self.kernels.setdefault(name, spec)
        self.calls.setdefault(name, []).append(spec)
        dims = [self._dims.argument(d) for d in spec.dims]
        self._builder.emit(Call(name, (*inputs, *outputs, *dims)))

    def _made_for(self, device: str) -> str:
        """What a device's kernels depend on: its target, and the host that launches them."""
        target = self._targets[device]
        return target.spec if target.host is target else f"{target.spec} {target.host.spec}"

    def copy_to(self, space: str, source: Reg, t: TensorType) -> Reg:
        """A copy of a tensor in another memory space, with storage of its own."""
        reg = self.allocate(t, space)
        self._builder.emit(Transfer(source, reg, space))
        return reg

    def run(self, graph: Graph, inputs: Sequence[Reg]) -> list[Reg]:
        """Call the kernel of a graph of one op; returns the registers of its results."""
        (node,) = graph.nodes
        spec = replace(kernel_spec(graph, node), node="")
        outputs = [self.allocate(v.tensor_type) for v in graph.outputs]
        self.call(spec, inputs, outputs)
        return outputs


__all__ = ["KernelCalls"]
