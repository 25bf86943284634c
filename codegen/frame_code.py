"""Frames, and code that works on them: what native code of models and of loops shares.

A *frame* is an array of 64-bit words. It holds the arguments of all kernel calls, as the packed
calling convention wants them (``DLTensor`` and ``TVMFFIAny``, see tvm_ffi's ``c_api.h``), so that a
call passes nothing but an address. It begins as a copy of a template. *Fixups* then add addresses
and dims, as a loader's relocations do: a pair (word, source) adds the word ``source`` to the word
``word``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import tvm
from tvm import tirx

from ..contract import ALIGNMENT, FRAME, FRAME_WEIGHTS, SCRATCH, Frame
from ..targets.tir.builder import BufferTensor, Builder, Scalar
from ..targets.tir.extents import index
from ..targets.tir.saturated_dim import saturated_dim
from .dim_code import decide
from .dim_slots import DimKernel
from .memory import aligned
from .program import DimSlot, Slot
from .signals import handle_signals, require
from .straight_line import (
    BailOut,
    BailOutIf,
    BindInput,
    Branch,
    Extent,
    InputDim,
    KernelCall,
    LoopCall,
    Memory,
    Scratch,
    Step,
    Tensor,
    walk,
)

MOST_BYTES = 1 << 48
"""Where the size of a scratch buffer is cut off (256 TiB), so that sums of sizes fit int64.

Such sizes do occur: a block of an ``If`` that is not taken may be written for other input sizes,
and for the ones at hand its buffers have absurd sizes. A run that would take more scratch memory
than there is goes to the virtual machine, which allocates for the block that it takes.
"""

_TENSOR_WORDS, _ANY_WORDS = 6, 2
_INT, _TENSOR = 1, 7  # type indices of TVMFFIAny
_CPU = 1  # device type of DLTensor
_SYMBOL = "__tvm_ffi_"

Expr: TypeAlias = Any


class FrameWords:
    """The template of a frame and its fixups.

    ``words`` is the template so far, ``fixups`` are pairs (word, word to add to it). ``slots``,
    ``tensors``, ``shapes`` and ``arguments`` say at which word each of these stands. ``homes``
    gives each scratch piece its buffer, and ``places`` each buffer its byte offset in scratch
    memory, or minus the word that will hold the address where its size depends on run-time dims
    (words of the frame's head come first, so that is never 0).
    """

    def __init__(self, frame: Frame, pieces: Sequence[Scratch], mixed: bool = True) -> None:
        self.frame = frame
        self.words = [0] * frame.end
        self.fixups: list[tuple[int, int]] = []
        self.slots: dict[int, int] = {}
        self.homes, buffers = share_memory(pieces, mixed)
        # Buffers of static size come first, so that their offsets are static too.
        self.places: dict[int, int] = {}
        self.static_bytes = 0
        self.open_buffers: list[tuple[int, list[DimSlot]]] = []
        self._place_buffers(buffers)
        self.tensors: dict[Tensor, int] = {}
        self.shapes: dict[tuple[Extent, ...], int] = {}
        self.arguments: dict[tuple[Tensor | DimSlot, ...], int] = {}
        self.result_word = self.add([0] * _ANY_WORDS)

    def add_steps(self, steps: Sequence[Step]) -> None:
        """Add what the calls and branches of these steps read."""
        for step in walk(steps):
            if isinstance(step, KernelCall | LoopCall):
                self._add_arguments(step.operands)
            if isinstance(step, LoopCall):
                self.tensor(step.done)
            elif isinstance(step, Branch):
                self.tensor(step.condition)
            elif isinstance(step, BailOutIf):
                self.source_word(step.verdict)

    def add(self, words: Sequence[int]) -> int:
        """Add words; returns the place of the first."""
        first = len(self.words)
        self.words.extend(words)
        return first

    def _place_buffers(self, buffers: Sequence[list[DimSlot]]) -> None:
        """Give each buffer an offset in scratch memory, or a word for it."""
        for n, sizes in enumerate(buffers):
            known = [d for d in sizes if isinstance(d, int)]
            if len(known) == len(sizes):
                self.places[n] = self.static_bytes
                self.static_bytes += aligned(max(known))
            else:
                self.places[n] = -self.open_place(sizes)

    def open_place(self, sizes: list[DimSlot]) -> int:
        """Add the word that holds the address of a buffer for any of these sizes."""
        word = self.add([0])
        self.fixups.append((word, SCRATCH))
        self.open_buffers.append((word, sizes))
        return word

    def _extent_word(self, d: Extent) -> int:
        """Add a word with the value of a dim, or with zero and a fixup that adds it."""
        if isinstance(d, int):
            return self.add([d])
        word = self.add([0])
        self.fixups.append((word, self.source_word(d)))
        return word

    def source_word(self, d: Slot | InputDim) -> int:
        """The word that holds a run-time dim."""
        if isinstance(d, InputDim):
            return self.frame.input_dim(d.number, d.axis)
        if d.index not in self.slots:
            self.slots[d.index] = self.add([0])
        return self.slots[d.index]

    def _shape(self, shape: tuple[Extent, ...]) -> int:
        """The first word of the dims of a ``DLTensor``; equal shapes share theirs."""
        if shape not in self.shapes:
            for d in shape:  # words of slots must not end up between those of the dims
                if isinstance(d, Slot):
                    self.source_word(d)
            words = [self._extent_word(d) for d in shape]
            self.shapes[shape] = words[0] if words else 0
        return self.shapes[shape]

    def tensor(self, t: Tensor) -> int:
        """The first word of a tensor's ``DLTensor``, which is the address of its elements."""
        if t not in self.tensors:
            shape = self._shape(t.shape)
            rank = _rank_and_dtype(t)
            at = self.add([self.address(t.memory), _CPU, rank, 8 * shape, 0, 0])
            self.fixups.append((at + 3, FRAME))
            base = self.base(t.memory)
            if base is not None:
                self.fixups.append((at, base))
            self.tensors[t] = at
        return self.tensors[t]

    def address(self, memory: Memory) -> int:
        """The static part of an address: an offset from what :meth:`base` names."""
        if memory.kind == "piece":
            return max(self.places[self.homes[memory.number]], 0) + memory.offset
        return memory.number if memory.kind == "weight" else 0

    def base(self, memory: Memory) -> int | None:
        """The word to add to :meth:`address`; None where code sets the address in each run."""
        if memory.kind == "piece":
            place = self.places[self.homes[memory.number]]
            return -place if place < 0 else SCRATCH
        return FRAME_WEIGHTS if memory.kind == "weight" else None

    def _add_arguments(self, operands: tuple[Tensor | DimSlot, ...]) -> None:
        """Add the ``TVMFFIAny`` words of a call's arguments; equal calls share them."""
        if operands in self.arguments:
            return
        values = []
        for x in operands:
            if isinstance(x, Tensor):
                values.append((_TENSOR, 8 * self.tensor(x), FRAME))
            elif isinstance(x, Slot):
                values.append((_INT, 0, self.source_word(x)))
            else:
                values.append((_INT, x, -1))
        first = self.add([word for kind, value, _ in values for word in (kind, value)])
        bases = [base for _, _, base in values]
        self.fixups += [(first + 2 * n + 1, base) for n, base in enumerate(bases) if base >= 0]
        self.arguments[operands] = first


class FrameWriter:
    """Reads and writes the words of a frame in a function under construction."""

    def __init__(self, b: Builder, words: BufferTensor, frame: Frame) -> None:
        self.b, self.words, self.frame = b, words, frame
        self.slots: dict[int, Expr] = {}

    def get(self, at: int) -> Expr:
        return self.b.let(self.words[at])

    def set(self, at: int, value: Expr) -> None:
        self.words.store((at,), value)

    def flag(self, tensor: int) -> Expr:
        """The value of a one-element bool tensor whose ``DLTensor`` begins at word ``tensor``."""
        content = self.b.memory_at(self.get(tensor), (1,), "uint8")
        return tirx.NE(content[0], tirx.const(0, "uint8"))

    def extent(self, d: Extent) -> Expr:
        if isinstance(d, Slot):
            return self.slots[d.index]
        if isinstance(d, InputDim):
            return self.get(self.frame.input_dim(d.number, d.axis))
        return index(d)

    def learn_dims(self, steps: Sequence[BindInput | DimKernel]) -> None:
        """Give the slots their values."""
        for step in steps:
            if isinstance(step, BindInput):
                for axis, d in enumerate(step.dims):
                    if isinstance(d, Slot):
                        self.slots[d.index] = self.extent(InputDim(step.number, axis))
                continue
            names = {name: self.slots[slot] for name, slot in step.symbols}
            for slot, expression in step.targets:
                value = saturated_dim(self.b, expression, names.__getitem__)
                self.slots[slot] = self.b.let(value)
            if step.verdict is not None:
                self.slots[step.verdict.slot], *_ = decide(self.b, step.verdict, names.__getitem__)

    def largest(self, sizes: Sequence[DimSlot]) -> Expr:
        """The largest of these sizes in bytes, rounded up to the alignment."""
        most: Expr = index(0)
        for size in sizes:
            most = self.b.let(tirx.max(most, self.extent(size)))
        most = tirx.min(most, index(MOST_BYTES))
        units = tirx.floordiv(most + (ALIGNMENT - 1), index(ALIGNMENT))
        return units * ALIGNMENT


@dataclass(frozen=True)
class StepWriter:
    """Writes code that runs steps.

    ``address`` is the frame's, ``status`` collects what kernels return, ``signal`` is the word to
    poll, and ``bail_out`` emits what ends the run where the virtual machine has to take over.
    """

    words: FrameWords
    writer: FrameWriter
    address: Expr
    status: Scalar
    signal: BufferTensor
    bail_out: Callable[[], None]

    def write(self, steps: Sequence[Step]) -> None:
        b, words = self.writer.b, self.words
        for step in steps:
            match step:
                case KernelCall(kernel, operands):
                    code = self._call(kernel, operands)
                    self.status.set(tirx.bitwise_or(self.status.get(), code))
                    handle_signals(b, self.signal)
                case LoopCall(loop, operands, done):
                    # It returns an error for a signal only, whose handler has raised one already.
                    require(b, b.let(self._call(loop, operands)) == 0)
                    with b.when(tirx.Not(self.writer.flag(words.tensors[done]))):
                        self.bail_out()
                case Branch(condition, then, orelse):
                    with b.when(self.writer.flag(words.tensors[condition])):
                        self.write(then)
                    with b.otherwise():
                        self.write(orelse)
                case BailOutIf(verdict):
                    verdict_word = self.writer.get(words.source_word(verdict))
                    with b.when(tirx.NE(verdict_word, index(0))):
                        self.bail_out()
                case BailOut():
                    self.bail_out()

    def _call(self, kernel: str, operands: tuple[Tensor | DimSlot, ...]) -> Expr:
        """A call of a function; its value is 0, or not where it raised an error."""
        # Addresses are passed as 64-bit integers: the calling convention makes no difference.
        return tirx.call_extern(
            "int32", _SYMBOL + kernel, index(0), self.address + 8 * self.words.arguments[operands],
            tirx.const(len(operands), "int32"), self.address + 8 * self.words.result_word,
        )  # fmt: skip


def share_memory(
    pieces: Sequence[Scratch], mixed: bool = True
) -> tuple[dict[int, int], list[list[DimSlot]]]:
    """Assign scratch pieces to buffers such that no two in one buffer are live at once.

    Returns the buffer of each piece that is used, and the sizes of the pieces of each buffer. It is
    a linear scan over the steps: a piece takes a free buffer that held one of its own size, or else
    any free one (unless sizes are not to be ``mixed``), or else a new one. Three pieces of ``4*N``
    bytes, live in steps 0 to 1, 1 to 2 and 2 to 3, need two buffers; the third takes that of the
    first.
    """
    homes: dict[int, int] = {}
    buffers: list[list[DimSlot]] = []
    busy_until: list[int] = []
    used = [n for n, p in enumerate(pieces) if p.start >= 0]
    for n in sorted(used, key=lambda n: pieces[n].start):
        piece = pieces[n]
        free = [r for r, end in enumerate(busy_until) if end < piece.start]
        other = free[0] if free and mixed else None
        buffer = next((r for r in free if piece.size in buffers[r]), other)
        if buffer is None:
            buffer = len(buffers)
            buffers.append([])
            busy_until.append(-1)
        buffers[buffer].append(piece.size)
        busy_until[buffer] = piece.end
        homes[n] = buffer
    return homes, [list(dict.fromkeys(sizes)) for sizes in buffers]


def _rank_and_dtype(t: Tensor) -> int:
    """The word of a DLTensor that holds its rank and its element type."""
    dtype = tvm.DataType(t.dtype)
    return len(t.shape) | dtype.type_code << 32 | dtype.bits << 40 | dtype.lanes << 48


__all__ = ["MOST_BYTES", "FrameWords", "FrameWriter", "StepWriter", "share_memory"]
