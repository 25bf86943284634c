"""Straight-line programs: kernel calls and branches on tensors that are fully described.

Native code of models (:mod:`.native`) and of loops' bodies (:mod:`.loops`) is generated from them.
A program becomes one by abstract interpretation: its instructions run at compile time on
descriptions of what each register holds, that is, which memory a tensor lies in, its shape and its
element type. All of this is known at compile time but for addresses and run-time dims, unless the
program has a host function, a size that depends on data, or a loop that is no function of its own.

An ``If`` becomes a branch where both of its blocks can write their results to the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from ..contract import ALIGNMENT
from ..ir.dims import is_static
from ..ir.storage import storage_name
from ..ir.types import TensorType
from .dim_slots import DimKernel
from .program import (
    AllocStorage,
    BindShape,
    BindSizes,
    Block,
    Call,
    CallHost,
    CallLoop,
    CheckSizes,
    ComputeDims,
    Copy,
    DimSlot,
    If,
    Imm,
    Instruction,
    Kill,
    LoadInput,
    LoadWeight,
    Loop,
    MakeTensor,
    MakeTuple,
    Operand,
    Program,
    ReadDim,
    Reg,
    SignalWord,
    Slot,
    View,
)


@dataclass(frozen=True)
class InputDim:
    """A run-time dim that is read off the shape of an input."""

    number: int
    axis: int


@dataclass(frozen=True)
class Memory:
    """Where a tensor lies: ``kind`` is input, output, weight, piece (a scratch buffer) or signal
    (the word to poll); bodies of loops have others, see :mod:`.loop_program`.

    ``number`` counts within the kind (for a weight it is the byte offset among all weights),
    ``offset`` is in bytes from the start of that memory.
    """

    kind: str
    number: int
    offset: int = 0


Extent: TypeAlias = "int | Slot | InputDim"


@dataclass(frozen=True)
class Tensor:
    """A tensor of a straight-line program; ``dtype`` is the TVM dtype of its elements in memory."""

    memory: Memory
    shape: tuple[Extent, ...]
    dtype: str


@dataclass(frozen=True)
class KernelCall:
    """Call a kernel: tensors first, then run-time dims."""

    kernel: str
    operands: tuple[Tensor | DimSlot, ...]


@dataclass(frozen=True)
class LoopCall:
    """Call a loop's function, as a kernel; :class:`BailOut` where it leaves ``done`` false."""

    loop: str
    operands: tuple[Tensor | DimSlot, ...]
    done: Tensor


@dataclass(frozen=True)
class Branch:
    """Run one of two lists of steps by a bool tensor of one element."""

    condition: Tensor
    then: tuple[Step, ...]
    orelse: tuple[Step, ...]


@dataclass(frozen=True)
class BailOut:
    """End the run: the virtual machine repeats it, and says what is wrong."""


@dataclass(frozen=True)
class BailOutIf:
    """:class:`BailOut` where the slot of a check on sizes is not 0."""

    verdict: Slot


Step: TypeAlias = "KernelCall | LoopCall | Branch | BailOut | BailOutIf"


def walk(steps: Sequence[Step]) -> Iterator[Step]:
    """All steps, depth first: those of a branch follow it, then before else."""
    for step in steps:
        yield step
        if isinstance(step, Branch):
            yield from walk(step.then)
            yield from walk(step.orelse)


@dataclass
class Scratch:
    """A scratch buffer, live from step ``start`` to step ``end`` (included) of :func:`walk`.

    Both are -1 where no step uses it.
    """

    size: DimSlot
    start: int = -1
    end: int = -1


@dataclass
class StraightLine:
    """The steps of a program, in order, and what they work on.

    ``results`` are the model's outputs and ``pieces`` the scratch buffers. ``dims`` says how slots
    get their values, in order: from the dims of an input, or by a kernel's expressions.
    ``verdicts`` are slots that must be 0 for the steps to run at all.
    """

    steps: tuple[Step, ...] = ()
    results: list[Tensor] = field(default_factory=list)
    dims: list[BindInput | DimKernel] = field(default_factory=list)
    verdicts: list[Slot] = field(default_factory=list)
    pieces: list[Scratch] = field(default_factory=list)


@dataclass(frozen=True)
class BindInput:
    """Store the dims of input ``number`` in slots (None: not needed, int: must equal)."""

    number: int
    dims: tuple[DimSlot | None, ...]


_NO_PLACE = "a value whose place depends on a branch"


def straight_line(
    program: Program, kernels: Sequence[DimKernel], weights: Sequence[tuple[str, np.ndarray]],
    inputs: Sequence[TensorType],
) -> StraightLine | str:  # fmt: skip
    """The program in straight-line form, or why it has none; ``inputs`` are the model's.

    A reason completes "because of ...": a loop, a host function, a size that depends on data, or
    a result of an ``If`` that a block does not compute but hands on, such as an input: the other
    block cannot write its own result there.
    """
    offsets = []
    total = 0
    for _, array in weights:
        offsets.append(total)
        total += -(-array.nbytes // ALIGNMENT) * ALIGNMENT

    def weight(number: int) -> Tensor:
        array = weights[number][1]
        return Tensor(
            Memory("weight", offsets[number]), array.shape, storage_name(array.dtype.name)
        )

    reader = Reader(kernels, weight, inputs, program.result)
    try:
        return reader.finish(reader.block(program.body))
    except Foreign as e:
        return e.reason


class Foreign(Exception):
    """The program has no straight-line form; ``reason`` completes "because of ..."."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Reader:
    """The abstract interpreter: ``held`` describes what each register holds.

    ``storage`` maps registers that hold storage to numbers of scratch buffers, ``weight`` tells
    where a constant lies, and ``depth`` is 1 in instructions that every run executes.
    """

    def __init__(
        self, dim_kernels: Sequence[DimKernel], weight: Callable[[int], Tensor],
        inputs: Sequence[TensorType] = (), result: Reg | None = None, depth: int = 0,
    ) -> None:  # fmt: skip
        self.weight = weight
        self.inputs = inputs
        self.result = result
        self.kernels = {k.name: k for k in dim_kernels}
        self.program = StraightLine()
        self.steps: list[Step] = []
        self.depth = depth
        self.held: dict[Reg, Tensor | Slot] = {}
        self.storage: dict[Reg, int] = {}

    def block(self, block: Sequence[Instruction]) -> tuple[Step, ...]:
        """The steps of a block."""
        outer, self.steps = self.steps, []
        self.depth += 1
        for instruction in block:
            self._read(instruction)
        self.depth -= 1
        steps, self.steps = self.steps, outer
        return tuple(steps)

    def _read(self, i: Instruction) -> None:
        out = self.program
        match i:
            case LoadInput(dst, number):
                t = self.inputs[number]
                shape = tuple(
                    int(d) if is_static(d) else InputDim(number, axis)
                    for axis, d in enumerate(t.dims)
                )
                self.held[dst] = Tensor(Memory("input", number), shape, storage_name(t.dtype.name))
            case LoadWeight(dst, number):
                self.held[dst] = self.weight(number)
            case AllocStorage(dst, size):
                self.storage[dst] = len(out.pieces)
                out.pieces.append(Scratch(size))
            case MakeTensor(dst, storage, offset, shape, dtype):
                self.held[dst] = Tensor(
                    Memory("piece", self.storage[storage], offset), shape, dtype
                )
            case View(dst, source, shape):
                self.held[dst] = replace(self.tensor(source), shape=shape)
            case Copy(dst, source) if source in self.held:
                self.held[dst] = self.held[source]
            case ReadDim(dst, slot):
                self.held[dst] = slot
            case BindShape(source, dims, _):
                memory = self.tensor(source).memory
                if memory.kind != "input":
                    raise Foreign("sizes that data tell")
                out.dims.append(BindInput(memory.number, dims))
            case ComputeDims(kernel):
                out.dims.append(self.kernels[kernel])
            case CheckSizes(verdict):
                # A check in a branch must not end runs that do not take it, nor one in a loop those
                # without iterations.
                if self.depth > 1:
                    self.steps.append(BailOutIf(verdict))
                else:
                    out.verdicts.append(verdict)
            case Call(kernel, arguments):
                self.steps.append(KernelCall(kernel, tuple(map(self._operand, arguments))))
            case CallLoop(loop, arguments, done, _):
                operands = tuple(map(self._operand, arguments))
                self.steps.append(LoopCall(loop, operands, self.tensor(done)))
            case If(condition, then, orelse):
                self._branch(self.tensor(condition), then, orelse)
            case CallHost(_, "Refuse", _, ()):
                self.steps.append(BailOut())
            case MakeTuple(dst, items) if dst == self.result:
                if None in items:
                    raise Foreign("a result that may be missing")
                out.results = [self.tensor(r) for r in items if r is not None]
            case Kill():
                pass
            case CallHost(_, op):
                raise Foreign(f"the host function {op}")
            case Loop():
                raise Foreign("a loop")
            case BindSizes():
                raise Foreign("sizes that data tell")
            case _:
                raise Foreign(f"an instruction {type(i).__name__}")

    def tensor(self, reg: Reg) -> Tensor:
        """The tensor that a register holds."""
        found = self.held.get(reg)
        if not isinstance(found, Tensor):
            raise Foreign(_NO_PLACE)
        return found

    def _operand(self, x: Operand) -> Tensor | DimSlot:
        if isinstance(x, Imm):
            return x.value
        if isinstance(x, SignalWord):
            return Tensor(Memory("signal", 0), (1,), "int64")
        if not isinstance(x, Reg) or x not in self.held:
            raise Foreign(_NO_PLACE)
        return self.held[x]

    def _branch(self, condition: Tensor, then: Block, orelse: Block) -> None:
        if condition.dtype != "bool" or any(d != 1 for d in condition.shape):
            raise Foreign("a condition that is not one truth value")
        before = dict(self.held)
        first = len(self.program.pieces)
        then_steps = self.block(then)
        then_held, self.held = self.held, before
        second = len(self.program.pieces)
        else_steps = self.block(orelse)
        moved = self._join(then_held, first, second)

        def joined(t: Tensor) -> Tensor:
            return replace(t, memory=moved.get(t.memory, t.memory))

        self.steps.append(Branch(condition, then_steps, map_tensors(else_steps, joined)))

    def _join(
        self, then: dict[Reg, Tensor | Slot], first: int, second: int
    ) -> dict[Memory, Memory]:
        """Merge what the two blocks left in registers, where the control flow joins.

        ``then`` is what the then block left and ``self.held`` what the else block left; afterwards
        ``self.held`` is true whichever of them ran. Scratch buffers from ``first`` on belong to the
        then block, those from ``second`` on to the else block.

        A result that is in buffer 3 after one block and in buffer 5 after the other, with one type
        and size, is moved to buffer 3: the returned mapping says which memory of the else block is
        replaced by which of the then block. A register whose contents differ in any other way is
        dropped, and an instruction that reads it makes the program need the virtual machine.
        """
        orelse, self.held = self.held, {}
        moved: dict[Memory, Memory] = {}
        for reg, a in then.items():
            b = orelse.get(reg)
            if a == b:
                self.held[reg] = a
            elif isinstance(a, Tensor) and isinstance(b, Tensor) and self._alike(a, b):
                own = first <= a.memory.number < second <= b.memory.number
                # Two results may share a buffer in one block only if they do in the other.
                fresh = b.memory not in moved and a.memory not in moved.values()
                if own and (fresh or moved.get(b.memory) == a.memory):
                    moved[b.memory] = a.memory
                    self.held[reg] = a
        return moved

    def _alike(self, a: Tensor, b: Tensor) -> bool:
        """Do two tensors fill a scratch buffer each, and differ in nothing else?"""
        pieces = self.program.pieces
        return (
            a.memory.kind == b.memory.kind == "piece" and a.memory.offset == b.memory.offset == 0
            and (a.shape, a.dtype) == (b.shape, b.dtype)
            and pieces[a.memory.number].size == pieces[b.memory.number].size
        )  # fmt: skip

    def finish(self, steps: Sequence[Step]) -> StraightLine:
        """Let results be written to memory of the caller; work out the lifetimes of the rest."""
        out = self.program
        owners = {t.memory: Memory("output", n) for n, t in enumerate(out.results)}
        if len(owners) < len(out.results) or any(m.kind != "piece" for m in owners):
            raise Foreign("results that share memory")

        def settled(t: Tensor) -> Tensor:
            return replace(t, memory=owners.get(t.memory, t.memory))

        out.steps = map_tensors(steps, settled)
        out.results = list(map(settled, out.results))
        set_lifetimes(out)
        return out


def set_lifetimes(program: StraightLine) -> None:
    """Work out at which steps each scratch buffer is live."""
    # A run executes a subsequence of these steps, since it takes one block of each branch:
    # lifetimes that do not overlap here do not overlap in any run.
    for n, step in enumerate(walk(program.steps)):
        for t in operands_of(step):
            if isinstance(t, Tensor) and t.memory.kind == "piece":
                piece = program.pieces[t.memory.number]
                piece.start = n if piece.start < 0 else piece.start
                piece.end = n


def map_tensors(steps: Sequence[Step], change: Callable[[Tensor], Tensor]) -> tuple[Step, ...]:
    """The steps with each tensor replaced by what ``change`` makes of it."""

    def mapped(step: Step) -> Step:
        match step:
            case KernelCall(kernel, operands):
                return KernelCall(
                    kernel, tuple(change(t) if isinstance(t, Tensor) else t for t in operands)
                )
            case LoopCall(loop, operands, done):
                changed = tuple(change(t) if isinstance(t, Tensor) else t for t in operands)
                return LoopCall(loop, changed, change(done))
            case Branch(condition, then, orelse):
                return Branch(
                    change(condition), map_tensors(then, change), map_tensors(orelse, change)
                )
        return step

    return tuple(map(mapped, steps))


def operands_of(step: Step) -> tuple[Tensor | DimSlot, ...]:
    match step:
        case KernelCall(_, operands):
            return operands
        case LoopCall(_, operands, done):
            return (*operands, done)
        case Branch(condition):
            return (condition,)
    return ()
