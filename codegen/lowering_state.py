"""The state of lowering one graph: the registers of its values, and what all graphs share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..contract import HOST
from ..ir.graph import Graph, Node, Value
from .dim_slots import DimSlots
from .errors import CodegenError
from .kernel_calls import KernelCalls
from .liveness import Liveness
from .program import Reg
from .program_builder import ProgramBuilder

if TYPE_CHECKING:
    from .loop_code import LoopCode


@dataclass
class LoweringState:
    """A graph being lowered: the model, or a body that is inlined into it.

    ``live`` says when its values die and which of them lie in the ``arenas``, of which each memory
    space has one, in the register given. ``space`` tells where a node's results are; ``spaces`` has
    the values that are not in the host's. ``loops`` are the loops that have functions of their own,
    by name, None where none may have.
    """

    graph: Graph
    builder: ProgramBuilder
    dims: DimSlots
    kernels: KernelCalls
    live: Liveness
    space: Callable[[Node], str]
    arenas: dict[str, Reg] = field(default_factory=dict)
    registers: dict[Value, Reg] = field(default_factory=dict)
    spaces: dict[Value, str] = field(default_factory=dict)
    loops: dict[str, LoopCode] | None = None
    _copies: dict[Value, dict[str, Reg]] = field(default_factory=dict)

    def inner(self, body: Graph, inputs: Sequence[Reg]) -> LoweringState:
        """The state for a body whose inputs are in these registers, in the host's memory."""
        live = Liveness(body, planned=False)
        registers = dict(zip(body.inputs, inputs, strict=True))
        return LoweringState(
            body, self.builder, self.dims, self.kernels, live, self.space, registers=registers,
            loops=self.loops,
        )  # fmt: skip

    def reg(self, value: Value, space: str = HOST) -> Reg:
        """The register of a value in a memory space.

        Constants are loaded on first use in a block; what is in another space is copied on first
        use in the model, and for each use in a body, which may not have run.
        """
        found = self.registers.get(value)
        if found is not None and self.spaces.get(value, HOST) == space:
            return found
        copy = self._copies.get(value, {}).get(space)
        if copy is not None:
            return copy
        array = value.constant
        if array is not None:
            reg = self.builder.constant(value, array, space)
        elif found is not None:
            reg = self.kernels.copy_to(space, found, value.tensor_type)
        else:
            raise CodegenError(f"value {value.name!r} is used before it is computed")
        if self.builder.outermost:
            if array is not None and space == HOST:
                self.registers[value] = reg
            else:
                self._copies.setdefault(value, {})[space] = reg
        return reg

    def regs(self, values: Iterable[Value | None], space: str = HOST) -> list[Reg]:
        """The registers of values in a memory space; none for those that are omitted."""
        return [self.reg(v, space) for v in values if v is not None]

    def put(self, value: Value, reg: Reg, space: str) -> None:
        """A value is in this register, and in this memory space."""
        self.registers[value] = reg
        if space != HOST:
            self.spaces[value] = space

    def copies_dead_after(self, node: Node) -> list[Reg]:
        """Copies of values in other spaces that nothing reads after ``node``; they are let go."""
        if not self._copies:
            return []
        dead = (v for v in self.live.ends_after(node) if v.node.key != "Constant")
        return [reg for v in dead for reg in self._copies.pop(v, {}).values()]

    def define(self, node: Node, results: Sequence[Reg]) -> None:
        """Record the registers of a node's results, and bind the sizes that their shapes show."""
        self.registers.update(zip(node.values, results, strict=True))
        self.dims.bind_types([(self.registers[v], v) for v in node.values])


__all__ = ["LoweringState"]
