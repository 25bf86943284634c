"""Straight-line programs as a list of kernel calls on described tensors, for native code.

A program of kernel calls only needs no virtual machine: what its registers hold is known when it
is compiled, but for addresses and run-time dims.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from .lower import DimKernel, Lowered
from .memory import ALIGNMENT
from .program import (
    AllocStorage,
    BindShape,
    Call,
    ComputeDims,
    Copy,
    DimSlot,
    Imm,
    Instruction,
    Kill,
    LoadInput,
    LoadWeight,
    MakeTensor,
    MakeTuple,
    Operand,
    ReadDim,
    Reg,
    Slot,
    View,
)
from .storage import storage_name


@dataclass(frozen=True)
class InputDim:
    """The extent of an input along an axis."""

    number: int
    axis: int


@dataclass(frozen=True)
class Memory:
    """Where a tensor lies: ``kind`` is input, output, weight or piece.

    ``number`` counts within the kind (for a weight it is the byte offset among all weights),
    ``offset`` is in bytes.
    """

    kind: str
    number: int
    offset: int = 0


Extent: TypeAlias = "int | Slot | InputDim"


@dataclass(frozen=True)
class Tensor:
    memory: Memory
    shape: tuple[Extent, ...]
    dtype: str


@dataclass
class Piece:
    """Scratch memory that is used from call ``start`` to call ``end``."""

    size: DimSlot
    start: int = -1
    end: int = -1


@dataclass
class Routine:
    """The calls of a program, in order, and what their arguments are.

    ``dims`` says how slots get their values: from the dims of an input, or by a kernel's
    expressions.
    """

    calls: list[tuple[str, tuple[Tensor | DimSlot, ...]]] = field(default_factory=list)
    results: list[Tensor] = field(default_factory=list)
    dims: list[BindInput | DimKernel] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)


@dataclass(frozen=True)
class BindInput:
    """Slots that take the dims of an input."""

    number: int
    dims: tuple[DimSlot | None, ...]


def routine(lowered: Lowered, inputs: Sequence[tuple[str, int]]) -> Routine | None:
    """The program's calls; None where it has control flow, host functions or sizes from data.

    ``inputs`` are the element type and rank of each input.
    """
    reader = _Reader(lowered, inputs)
    try:
        for instruction in lowered.program.body:
            reader.read(instruction)
        return reader.finish()
    except _Foreign:
        return None


class _Foreign(Exception):
    """The program needs the virtual machine."""


class _Reader:
    """Runs instructions over descriptions of what registers hold."""

    def __init__(self, lowered: Lowered, inputs: Sequence[tuple[str, int]]) -> None:
        self.lowered = lowered
        self.inputs = inputs
        self.kernels = {k.name: k for k in lowered.dim_kernels}
        self.routine = Routine()
        self.held: dict[Reg, Tensor | Slot] = {}
        self.storage: dict[Reg, int] = {}
        self.offsets: list[int] = []
        total = 0
        for _, array in lowered.weights:
            self.offsets.append(total)
            total += -(-array.nbytes // ALIGNMENT) * ALIGNMENT

    def read(self, i: Instruction) -> None:
        out = self.routine
        match i:
            case LoadInput(dst, number):
                dtype, rank = self.inputs[number]
                shape = tuple(InputDim(number, axis) for axis in range(rank))
                self.held[dst] = Tensor(Memory("input", number), shape, storage_name(dtype))
            case LoadWeight(dst, number):
                array = self.lowered.weights[number][1]
                memory = Memory("weight", self.offsets[number])
                self.held[dst] = Tensor(memory, array.shape, storage_name(array.dtype.name))
            case AllocStorage(dst, size):
                self.storage[dst] = len(out.pieces)
                out.pieces.append(Piece(size))
            case MakeTensor(dst, storage, offset, shape, dtype):
                self.held[dst] = Tensor(
                    Memory("piece", self.storage[storage], offset), shape, dtype
                )
            case View(dst, source, shape):
                self.held[dst] = replace(self._tensor(source), shape=shape)
            case Copy(dst, source) if source in self.held:
                self.held[dst] = self.held[source]
            case ReadDim(dst, slot):
                self.held[dst] = slot
            case BindShape(source, dims, _):
                memory = self._tensor(source).memory
                if memory.kind != "input":
                    raise _Foreign
                out.dims.append(BindInput(memory.number, dims))
            case ComputeDims(kernel):
                out.dims.append(self.kernels[kernel])
            case Call(kernel, arguments):
                out.calls.append((kernel, tuple(self._operand(a) for a in arguments)))
            case MakeTuple(dst, items) if dst == self.lowered.program.result:
                if None in items:
                    raise _Foreign
                out.results = [self._tensor(r) for r in items if r is not None]
            case Kill():
                pass
            case _:
                raise _Foreign

    def _tensor(self, reg: Reg) -> Tensor:
        found = self.held.get(reg)
        if not isinstance(found, Tensor):
            raise _Foreign
        return found

    def _operand(self, x: Operand) -> Tensor | DimSlot:
        if isinstance(x, Imm):
            return x.value
        if not isinstance(x, Reg) or x not in self.held:
            raise _Foreign
        return self.held[x]

    def finish(self) -> Routine:
        """Results go to memory of the caller; what is left of pieces gets its lifetime."""
        out = self.routine
        owners = {t.memory: Memory("output", n) for n, t in enumerate(out.results)}
        if len(owners) < len(out.results) or any(m.kind != "piece" for m in owners):
            raise _Foreign

        def settled(t: Tensor | DimSlot) -> Tensor | DimSlot:
            if isinstance(t, Tensor):
                return replace(t, memory=owners.get(t.memory, t.memory))
            return t

        out.calls = [(name, tuple(map(settled, operands))) for name, operands in out.calls]
        out.results = [replace(t, memory=owners[t.memory]) for t in out.results]
        for step, (_, operands) in enumerate(out.calls):
            for t in operands:
                if isinstance(t, Tensor) and t.memory.kind == "piece":
                    piece = out.pieces[t.memory.number]
                    piece.start = step if piece.start < 0 else piece.start
                    piece.end = step
        return out
