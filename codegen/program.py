"""The program: what a compiled model does, as a list of instructions over registers.

It is the last form before code is written: the Relax virtual machine's bytecode is emitted from
it (:mod:`.vm`), and other hosts can be. Registers are numbered; instructions are structured
(``If`` and ``Loop`` hold blocks), so no jump offsets appear here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from ..contract import HOST


@dataclass(frozen=True)
class Reg:
    """A virtual register."""

    number: int


@dataclass(frozen=True)
class Imm:
    """An integer immediate."""

    value: int


@dataclass(frozen=True)
class ShapeConst:
    """A constant shape."""

    dims: tuple[int, ...]


@dataclass(frozen=True)
class SignalWord:
    """The word to poll for signals, as an int64[1] tensor."""


Operand: TypeAlias = "Reg | Imm | ShapeConst | SignalWord"
DimSlot: TypeAlias = "int | Slot"


@dataclass(frozen=True)
class Slot:
    """An entry of the table of run-time dims: the size that slot ``index`` holds."""

    index: int


@dataclass(frozen=True)
class LoadWeight:
    """dst = weights[index], which the runtime holds in memory space ``space``."""

    dst: Reg
    index: int
    space: str = HOST


@dataclass(frozen=True)
class LoadInput:
    """dst = inputs[index]."""

    dst: Reg
    index: int


@dataclass(frozen=True)
class AllocStorage:
    """dst = ``size`` bytes from the runtime's pool; size is static or a dim slot."""

    dst: Reg
    size: DimSlot
    space: str = HOST


@dataclass(frozen=True)
class MakeTensor:
    """dst = a tensor over ``storage`` at byte ``offset``."""

    dst: Reg
    storage: Reg
    offset: int
    shape: tuple[DimSlot, ...]
    dtype: str


@dataclass(frozen=True)
class View:
    """dst = ``source`` with another shape, same elements."""

    dst: Reg
    source: Reg
    shape: tuple[DimSlot, ...]


@dataclass(frozen=True)
class Transfer:
    """Copy the elements of ``source`` to ``target``, a tensor of its shape in space ``space``."""

    source: Reg
    target: Reg
    space: str


@dataclass(frozen=True)
class Call:
    """Call a kernel: tensors in, tensors out, then run-time dims."""

    kernel: str
    arguments: tuple[Operand, ...]


@dataclass(frozen=True)
class CallHost:
    """dst = tuple of results of a host function."""

    dst: Reg
    op: str
    attributes: str
    arguments: tuple[Operand | None, ...]


@dataclass(frozen=True)
class GetItem:
    """dst = tuple[index]."""

    dst: Reg
    source: Reg
    index: int


@dataclass(frozen=True)
class MakeTuple:
    """dst = a tuple of what the registers hold (None: nothing)."""

    dst: Reg
    items: tuple[Reg | None, ...]


@dataclass(frozen=True)
class BindShape:
    """Store the dims of a tensor into slots (None: ignore, int: must equal)."""

    source: Reg
    dims: tuple[DimSlot | None, ...]
    what: str


@dataclass(frozen=True)
class BindSizes:
    """Store the elements of an int64 tensor into slots (None: ignore)."""

    source: Reg
    slots: tuple[Slot | None, ...]


@dataclass(frozen=True)
class ReadDim:
    """dst = the value of a slot as an int scalar."""

    dst: Reg
    slot: Slot


@dataclass(frozen=True)
class ComputeDims:
    """Call a kernel that fills derived entries of the dim table from bound ones."""

    kernel: str


@dataclass(frozen=True)
class SizeCheck:
    """What is said where a condition between two sizes does not hold.

    ``a`` and ``b`` are the sizes as the graph writes them.
    """

    message: str
    a: str
    b: str
    hint: str


@dataclass(frozen=True)
class CheckSizes:
    """End the run with an error unless slot ``verdict`` is 0.

    Otherwise ``verdict`` is the number of the check that failed, counted from 1, and slots ``a``
    and ``b`` hold the two sizes that it compares.
    """

    verdict: Slot
    a: Slot
    b: Slot
    checks: tuple[SizeCheck, ...]


@dataclass(frozen=True)
class Copy:
    """dst = source (the same object)."""

    dst: Reg
    source: Reg


@dataclass(frozen=True)
class Kill:
    """Drop what a register holds, so that memory that only it refers to is freed."""

    reg: Reg


@dataclass(frozen=True)
class If:
    """Run one of two blocks by a bool tensor."""

    condition: Reg
    then: Block
    orelse: Block


@dataclass(frozen=True)
class Loop:
    """Run ``test``, which leaves a bool tensor in ``condition``; while it is true, run ``body``
    and ``test`` again.
    """

    test: Block
    condition: Reg
    body: Block


@dataclass(frozen=True)
class StepLoop:
    """Add 1 to ``iteration``, in place, and set ``test``: ``iteration < limit and condition``."""

    iteration: Reg
    limit: Reg
    condition: Reg
    test: Reg


@dataclass(frozen=True)
class CallLoop:
    """Run a whole loop as native code, the function ``loop``; see :mod:`.loop_program`.

    It sets ``done``, a bool tensor among its arguments. Where that is false, it left the loop, as
    something does not hold or a kernel failed: ``otherwise`` is the same loop as instructions,
    which start anew, and say what is wrong. A ``steady`` loop takes as long in all runs with the
    same shapes.
    """

    loop: str
    arguments: tuple[Operand, ...]
    done: Reg
    otherwise: Block
    steady: bool = False


Instruction: TypeAlias = (
    "LoadWeight | LoadInput | AllocStorage | MakeTensor | View | Transfer | Call | CallHost"
    " | GetItem | MakeTuple | BindShape | BindSizes | ReadDim | ComputeDims | CheckSizes | Copy"
    " | Kill | If | Loop | StepLoop | CallLoop"
)
Block: TypeAlias = "tuple[Instruction, ...]"


def instruction_count(block: Sequence[Instruction]) -> int:
    """How many instructions a block has, those of blocks inside of it included.

    A loop that native code runs is one.
    """
    total = len(block)
    for i in block:
        if isinstance(i, If):
            total += instruction_count(i.then) + instruction_count(i.orelse)
        elif isinstance(i, Loop):
            total += instruction_count(i.test) + instruction_count(i.body)
    return total


@dataclass
class Program:
    """A whole model: its instructions, and how many registers and slots they use.

    ``result`` is the register of the tuple of results, ``spaces`` are the memory spaces beside the
    host's, ``arena_bytes`` is the size of all arenas, and ``host_functions`` names the functions of
    the runtime that are called.
    """

    body: list[Instruction] = field(default_factory=list)
    inputs: int = 0
    registers: int = 0
    slots: int = 0
    result: Reg = Reg(0)
    arena_bytes: int = 0
    spaces: list[str] = field(default_factory=list)
    host_functions: set[str] = field(default_factory=set)
