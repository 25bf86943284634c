"""Writing a program: registers, blocks, weights and calls of host functions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager

import numpy as np

from ..contract import HOST
from ..ir.dims import Dim, free_symbols
from ..ir.graph import Value
from ..ir.storage import storage_array
from .attributes import attributes_json
from .program import (
    CallHost,
    GetItem,
    Instruction,
    Kill,
    LoadWeight,
    Operand,
    Program,
    ReadDim,
    Reg,
    Slot,
)


class ProgramBuilder:
    """A program under construction; ``weights`` are names and arrays of the constants it loads.

    ``weight_spaces`` are the memory spaces of those that are not in the host's, ``dim_slots`` the
    slots that registers with dims were read from.
    """

    def __init__(self) -> None:
        self.program = Program()
        self.weights: list[tuple[str, np.ndarray]] = []
        self.weight_spaces: dict[int, str] = {}
        self._block: list[Instruction] = self.program.body
        self._weight_index: dict[tuple[int, str], int] = {}
        self._dim_regs: dict[Dim, Reg] = {}
        self.dim_slots: dict[Reg, Slot] = {}

    def emit(self, instruction: Instruction) -> None:
        self._block.append(instruction)

    def new_reg(self) -> Reg:
        self.program.registers += 1
        return Reg(self.program.registers)

    @property
    def outermost(self) -> bool:
        """Are instructions emitted outside of all blocks, so that they run in every run?"""
        return self._block is self.program.body

    @contextmanager
    def nested(self) -> Iterator[list[Instruction]]:
        """A context in which instructions are emitted to a new block, which it gives."""
        outer, self._block = self._block, []
        held = dict(self._dim_regs)
        yield self._block
        self._block = outer
        # Registers read inside of the block may not be set behind it, as the block may not run;
        # registers read before it are stale behind it where the block binds their symbols anew.
        self._dim_regs = {d: r for d, r in held.items() if self._dim_regs.get(d) == r}

    # ---- values that instructions read ---------------------------------------------------------

    def constant(self, value: Value, array: np.ndarray, space: str = HOST) -> Reg:
        """A new register with the array of a constant, in a memory space."""
        reg = self.new_reg()
        if value.dtype == "string":
            self.program.host_functions.add("Constant")
            holder = self.new_reg()
            self.emit(CallHost(holder, "Constant", attributes_json({"value": array}), ()))
            self.emit(GetItem(reg, holder, 0))
        else:
            self.emit(LoadWeight(reg, self._weight(value.name, array, space), space))
        return reg

    def table(self, name: str, array: np.ndarray) -> Reg:
        """A new register with an array that is no constant of the graph."""
        reg = self.new_reg()
        self.emit(LoadWeight(reg, self._weight(name, array, HOST)))
        return reg

    def _weight(self, name: str, array: np.ndarray, space: str) -> int:
        index = self._weight_index.get((id(array), space))
        if index is None:
            index = self._weight_index[id(array), space] = len(self.weights)
            self.weights.append((name, storage_array(array)))
            if space != HOST:
                self.weight_spaces[index] = space
                self.use_space(space)
        return index

    def use_space(self, space: str) -> None:
        """The program needs memory of this space."""
        if space != HOST and space not in self.program.spaces:
            self.program.spaces.append(space)

    def dim(self, d: Dim, slot: Slot) -> Reg:
        """A register with the value of a dim, whose slot is read once in a block."""
        found = self._dim_regs.get(d)
        if found is None:
            found = self._dim_regs[d] = self.read_slot(slot)
        return found

    def read_slot(self, slot: Slot) -> Reg:
        """A new register with the value of a slot."""
        reg = self.new_reg()
        self.dim_slots[reg] = slot
        self.emit(ReadDim(reg, slot))
        return reg

    def forget_dims(self, symbols: Set[str]) -> None:
        """Forget registers with dims of these symbols, which have new values."""
        self._dim_regs = {d: r for d, r in self._dim_regs.items() if not free_symbols(d) & symbols}

    # ---- calls ---------------------------------------------------------------------------------

    def call_host(
        self, op: str, attributes: object, arguments: Sequence[Operand | None], count: int
    ) -> list[Reg]:
        """Call a host function of the runtime; returns registers of its ``count`` results."""
        self.program.host_functions.add(op)
        holder = self.new_reg()
        self.emit(CallHost(holder, op, attributes_json(attributes), tuple(arguments)))
        results = [self.new_reg() for _ in range(count)]
        for i, reg in enumerate(results):
            self.emit(GetItem(reg, holder, i))
        self.emit(Kill(holder))
        return results


__all__ = ["ProgramBuilder"]
