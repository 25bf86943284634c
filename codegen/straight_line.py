"""Straight-line programs: kernel calls and branches on tensors that are fully described.

Native code (:mod:`.native`) is generated from them. A program becomes one by abstract
interpretation: its instructions run at compile time on descriptions of what each register holds,
that is, which memory a tensor lies in, its shape and its element type. All of this is known at
compile time but for addresses and run-time dims, unless the program has a loop, a host function or
a size that depends on data.

An ``If`` becomes a branch where both of its blocks can write their results to the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from ..contract import ALIGNMENT
from ..ir.dims import is_static
from ..ir.storage import storage_name
from ..ir.types import TensorType
from .dim_slots import DimKernel
from .lower import Lowered
from .program import (
    AllocStorage,
    BindShape,
    BindSizes,
    Block,
    Call,
    CallHost,
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
    ReadDim,
    Reg,
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
    """Where a tensor lies: ``kind`` is input, output, weight or piece (a scratch buffer).

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


Step: TypeAlias = "KernelCall | Branch | BailOut | BailOutIf"


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


def straight_line(lowered: Lowered, inputs: Sequence[TensorType]) -> StraightLine | str:
    """The program in straight-line form, or why it has none; ``inputs`` are the model's.

    A reason completes "because of ...": a loop, a host function, a size that depends on data, or
    a result of an ``If`` that a block does not compute but hands on, such as an input: the other
    block cannot write its own result there.
    """
    reader = _Reader(lowered, inputs)
    try:
        return reader.finish(reader.block(lowered.program.body))
    except _Foreign as e:
        return e.reason


class _Foreign(Exception):
    """The program has no straight-line form; ``reason`` completes "because of ..."."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class _Reader:
    """The abstract interpreter: ``held`` describes what each register holds.

    ``storage`` maps registers that hold storage to numbers of scratch buffers, ``offsets`` has the
    byte offset of each weight, and ``depth`` is 1 outside of all branches.
    """

    def __init__(self, lowered: Lowered, inputs: Sequence[TensorType]) -> None:
        self.lowered = lowered
        self.inputs = inputs
        self.kernels = {k.name: k for k in lowered.dim_kernels}
        self.program = StraightLine()
        self.steps: list[Step] = []
        self.depth = 0
        self.held: dict[Reg, Tensor | Slot] = {}
        self.storage: dict[Reg, int] = {}
        self.offsets: list[int] = []
        total = 0
        for _, array in lowered.weights:
            self.offsets.append(total)
            total += -(-array.nbytes // ALIGNMENT) * ALIGNMENT

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
                array = self.lowered.weights[number][1]
                memory = Memory("weight", self.offsets[number])
                self.held[dst] = Tensor(memory, array.shape, storage_name(array.dtype.name))
            case AllocStorage(dst, size):
                self.storage[dst] = len(out.pieces)
                out.pieces.append(Scratch(size))
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
                    raise _Foreign("sizes that data tell")
                out.dims.append(BindInput(memory.number, dims))
            case ComputeDims(kernel):
                out.dims.append(self.kernels[kernel])
            case CheckSizes(verdict):
                # A check inside of a branch must not end runs that do not take the branch.
                if self.depth > 1:
                    self.steps.append(BailOutIf(verdict))
                else:
                    out.verdicts.append(verdict)
            case Call(kernel, arguments):
                self.steps.append(KernelCall(kernel, tuple(map(self._operand, arguments))))
            case If(condition, then, orelse):
                self._branch(self._tensor(condition), then, orelse)
            case CallHost(_, "Refuse", _, ()):
                self.steps.append(BailOut())
            case MakeTuple(dst, items) if dst == self.lowered.program.result:
                if None in items:
                    raise _Foreign("a result that may be missing")
                out.results = [self._tensor(r) for r in items if r is not None]
            case Kill():
                pass
            case CallHost(_, op):
                raise _Foreign(f"the host function {op}")
            case Loop():
                raise _Foreign("a loop")
            case BindSizes():
                raise _Foreign("sizes that data tell")
            case _:
                raise _Foreign(f"an instruction {type(i).__name__}")

    def _tensor(self, reg: Reg) -> Tensor:
        found = self.held.get(reg)
        if not isinstance(found, Tensor):
            raise _Foreign(_NO_PLACE)
        return found

    def _operand(self, x: Operand) -> Tensor | DimSlot:
        if isinstance(x, Imm):
            return x.value
        if not isinstance(x, Reg) or x not in self.held:
            raise _Foreign(_NO_PLACE)
        return self.held[x]

    def _branch(self, condition: Tensor, then: Block, orelse: Block) -> None:
        if condition.dtype != "bool" or any(d != 1 for d in condition.shape):
            raise _Foreign("a condition that is not one truth value")
        before = dict(self.held)
        first = len(self.program.pieces)
        then_steps = self.block(then)
        then_held, self.held = self.held, before
        second = len(self.program.pieces)
        else_steps = self.block(orelse)
        moved = self._join(then_held, first, second)

        def joined(t: Tensor) -> Tensor:
            return replace(t, memory=moved.get(t.memory, t.memory))

        self.steps.append(Branch(condition, then_steps, _mapped(else_steps, joined)))

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
            raise _Foreign("results that share memory")

        def settled(t: Tensor) -> Tensor:
            return replace(t, memory=owners.get(t.memory, t.memory))

        out.steps = _mapped(steps, settled)
        out.results = list(map(settled, out.results))
        # A run executes a subsequence of these steps, since it takes one block of each branch:
        # lifetimes that do not overlap here do not overlap in any run.
        for n, step in enumerate(walk(out.steps)):
            for t in _operands(step):
                if isinstance(t, Tensor) and t.memory.kind == "piece":
                    piece = out.pieces[t.memory.number]
                    piece.start = n if piece.start < 0 else piece.start
                    piece.end = n
        return out


def _mapped(steps: Sequence[Step], change: Callable[[Tensor], Tensor]) -> tuple[Step, ...]:
    """The steps with each tensor replaced by what ``change`` makes of it."""

    def mapped(step: Step) -> Step:
        match step:
            case KernelCall(kernel, operands):
                return KernelCall(
                    kernel, tuple(change(t) if isinstance(t, Tensor) else t for t in operands)
                )
            case Branch(condition, then, orelse):
                return Branch(change(condition), _mapped(then, change), _mapped(orelse, change))
        return step

    return tuple(map(mapped, steps))


def _operands(step: Step) -> tuple[Tensor | DimSlot, ...]:
    match step:
        case KernelCall(_, operands):
            return operands
        case Branch(condition):
            return (condition,)
    return ()
