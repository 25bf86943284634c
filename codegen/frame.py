"""The state of lowering one graph: the registers of its values, and what all graphs share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ..ir.graph import Graph, Node, Value
from .dim_slots import DimSlots
from .errors import CodegenError
from .kernel_calls import KernelCalls
from .liveness import Liveness
from .program import Reg
from .program_builder import ProgramBuilder


@dataclass
class Frame:
    """A graph being lowered: the model, or a body that is inlined into it.

    ``live`` says when its values die and which of them lie in the arena; ``arena`` is the register
    of its storage, None where no value lies there.
    """

    graph: Graph
    builder: ProgramBuilder
    dims: DimSlots
    kernels: KernelCalls
    live: Liveness
    arena: Reg | None = None
    registers: dict[Value, Reg] = field(default_factory=dict)

    def inner(self, body: Graph, inputs: Sequence[Reg]) -> Frame:
        """A frame for a body whose inputs are in these registers."""
        live = Liveness(body, planned=False)
        registers = dict(zip(body.inputs, inputs, strict=True))
        return Frame(body, self.builder, self.dims, self.kernels, live, registers=registers)

    def reg(self, value: Value) -> Reg:
        """The register of a value; constants are loaded on first use in a block."""
        found = self.registers.get(value)
        if found is not None:
            return found
        array = value.constant
        if array is None:
            raise CodegenError(f"value {value.name!r} is used before it is computed")
        reg = self.builder.constant(value, array)
        if self.builder.outermost:
            self.registers[value] = reg
        return reg

    def regs(self, values: Iterable[Value | None]) -> list[Reg]:
        """The registers of values; none for those that are omitted."""
        return [self.reg(v) for v in values if v is not None]

    def define(self, node: Node, results: Sequence[Reg]) -> None:
        """Record the registers of a node's results, and bind the sizes that their shapes show."""
        self.registers.update(zip(node.values, results, strict=True))
        self.dims.bind_types([(self.registers[v], v) for v in node.values])


__all__ = ["Frame"]
