"""Straight-line programs as native code: one function calls all kernels.

A run works on a *frame*, an array of 64-bit words that the runtime allocates: addresses of inputs
and outputs, the dims of both, and behind them the arguments of all kernel calls, as the packed
calling convention wants them (``DLTensor`` and ``TVMFFIAny``, see tvm_ffi's ``c_api.h``).

The artifact holds a template of the frame. It is prepared once for inputs of the same shapes:

1. The runtime fills in the inputs' dims. From them ``graphkiln_plan`` computes the outputs' dims,
   other dims, the offset of each scratch buffer, and the size of scratch memory. Where the dims
   break a condition it sets the status to :data:`~graphkiln.contract.BAILED_OUT`.
2. The runtime applies the fixups, as a loader applies relocations: a pair (word, source) adds the
   word ``source``, which holds an address or a dim, to the word ``word``.

Then each run of ``graphkiln_run`` copies the addresses of inputs and outputs into the arguments and
calls the kernels. It sets the status: zero, what failing kernels returned, or
:data:`~graphkiln.contract.BAILED_OUT`.

Between kernels it polls for signals: one word of the frame is the address of a word that becomes
nonzero when a signal has come. Then Python handles it, and the run fails where the handler raises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import tvm
from tvm import tirx

from ..contract import (
    ALIGNMENT,
    BAILED_OUT,
    FRAME,
    FRAME_WEIGHTS,
    PLAN,
    RUN,
    SCRATCH,
    SCRATCH_BYTES,
    STATUS,
    Frame,
)
from ..ir.graph import Graph
from ..ir.storage import storage_name
from ..ir.types import TensorType, Type
from ..targets.base import Target
from ..targets.tir.builder import BufferTensor, Builder, Scalar
from ..targets.tir.cpu_loops import CpuLoops
from ..targets.tir.extents import index
from ..targets.tir.saturated_dim import saturated_dim
from .build import object_of
from .dim_code import decide
from .lower import Lowered
from .memory import aligned
from .program import DimSlot, Slot, instruction_count
from .signals import handle_signals
from .straight_line import (
    BailOut,
    BailOutIf,
    BindInput,
    Branch,
    Extent,
    InputDim,
    KernelCall,
    Memory,
    Scratch,
    Step,
    StraightLine,
    Tensor,
    straight_line,
    walk,
)

FUNCTIONS = (PLAN, RUN)

MOST_INSTRUCTIONS = 4_000
"""Longer programs go to the virtual machine: they run so long that its overhead does not show."""

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
_ELEMENTS = frozenset({
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32",
    "uint64", "bool",
})  # fmt: skip

Expr: TypeAlias = Any


@dataclass(frozen=True)
class Native:
    """Compiled native code: ``content`` is an object file with :data:`FUNCTIONS`.

    ``words`` are the frame's template, ``fixups`` pairs (word, word to add to it), and ``stop`` is
    the word with the address to poll for signals.
    """

    content: bytes
    words: np.ndarray
    fixups: np.ndarray
    stop: int


def native_of(graph: Graph, lowered: Lowered, target: Target) -> Native | str:
    """Native code for a lowered graph, or why the virtual machine has to run it.

    A reason completes "because of ...".
    """
    if lowered.devices:
        return f"kernels on another device than the host, {', '.join(lowered.devices)}"
    if target.host.keeps_apart:
        return "temporaries that are kept apart"
    if (count := instruction_count(lowered.program.body)) > MOST_INSTRUCTIONS:
        return f"its {count} instructions, more than {MOST_INSTRUCTIONS}"
    values = (*graph.inputs, *graph.outputs)
    odd = next((v for v in values if not _is_plain(v.type)), None)
    if odd is not None:
        return f"the type of {odd.name!r}, {odd.type}"
    inputs = [v.tensor_type for v in graph.inputs]
    found = straight_line(lowered, inputs)
    return found if isinstance(found, str) else native_object(
        found, [t.rank for t in inputs], target
    )  # fmt: skip


def _is_plain(t: Type) -> bool:
    """A tensor of a known rank whose elements NumPy has."""
    return (
        isinstance(t, TensorType) and t.shape is not None
        and storage_name(t.dtype.name) == t.dtype.name and t.dtype.name in _ELEMENTS
    )  # fmt: skip


def native_object(steps: StraightLine, inputs: Sequence[int], target: Target) -> Native:
    """The object file of a straight-line program whose inputs have these ranks."""
    code = _Code(steps, Frame(tuple(inputs), tuple(len(t.shape) for t in steps.results)))
    functions = {PLAN: code.plan, RUN: code.run}
    module = tvm.IRModule({name: code.function(name, body) for name, body in functions.items()})
    fixups = np.array(code.fixups, np.int64).reshape(-1, 2)
    content = object_of(module, target.host, asserts=True)
    return Native(content, np.array(code.words, np.int64), fixups, code.stop)


class _Code:
    """The frame and the functions of a straight-line program.

    ``words`` is the template so far. ``slots``, ``tensors``, ``shapes`` and ``arguments`` say at
    which word each of these stands. ``homes`` gives each scratch piece its buffer, and ``places``
    each buffer its byte offset in scratch memory, or minus the word that will hold the offset where
    it depends on run-time dims (words of the frame's head come first, so that is never 0).
    """

    def __init__(self, steps: StraightLine, frame: Frame) -> None:
        self.steps = steps
        self.frame = frame
        self.words = [0] * frame.end
        self.fixups: list[tuple[int, int]] = []
        self.slots: dict[int, int] = {}
        self.homes, buffers = share_memory(steps.pieces)
        # Buffers of static size come first, so that their offsets are static too.
        self.places: dict[int, int] = {}
        self.static_bytes = 0
        self.open_buffers: list[tuple[int, list[DimSlot]]] = []
        self._place_buffers(buffers)
        self.tensors: dict[Tensor, int] = {}
        self.shapes: dict[tuple[Extent, ...], int] = {}
        self.arguments: dict[tuple[Tensor | DimSlot, ...], int] = {}
        for step in walk(steps.steps):
            if isinstance(step, KernelCall):
                self._add_arguments(step.operands)
            elif isinstance(step, Branch):
                self._tensor(step.condition)
            elif isinstance(step, BailOutIf):
                self._source_word(step.verdict)
        self.result_word = self._add([0] * _ANY_WORDS)
        self.stop = self._add([0])

    # ---- the frame ---------------------------------------------------------------------------

    def _add(self, words: Sequence[int]) -> int:
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
                word = self._add([0])
                self.fixups.append((word, SCRATCH))
                self.open_buffers.append((word, sizes))
                self.places[n] = -word

    def _extent_word(self, d: Extent) -> int:
        """Add a word with the value of a dim, or with zero and a fixup that adds it."""
        if isinstance(d, int):
            return self._add([d])
        word = self._add([0])
        self.fixups.append((word, self._source_word(d)))
        return word

    def _source_word(self, d: Slot | InputDim) -> int:
        """The word that holds a run-time dim."""
        if isinstance(d, InputDim):
            return self.frame.input_dim(d.number, d.axis)
        if d.index not in self.slots:
            self.slots[d.index] = self._add([0])
        return self.slots[d.index]

    def _shape(self, shape: tuple[Extent, ...]) -> int:
        """The first word of the dims of a ``DLTensor``; equal shapes share theirs."""
        if shape not in self.shapes:
            for d in shape:  # words of slots must not end up between those of the dims
                if isinstance(d, Slot):
                    self._source_word(d)
            words = [self._extent_word(d) for d in shape]
            self.shapes[shape] = words[0] if words else 0
        return self.shapes[shape]

    def _tensor(self, t: Tensor) -> int:
        """The first word of a tensor's ``DLTensor``."""
        if t not in self.tensors:
            shape = self._shape(t.shape)
            rank = _rank_and_dtype(t)
            at = self._add([self._address(t.memory), _CPU, rank, 8 * shape, 0, 0])
            self.fixups.append((at + 3, FRAME))
            base = self._base(t.memory)
            if base is not None:
                self.fixups.append((at, base))
            self.tensors[t] = at
        return self.tensors[t]

    def _address(self, memory: Memory) -> int:
        """The static part of an address: an offset from what :meth:`_base` names."""
        if memory.kind == "piece":
            return max(self.places[self.homes[memory.number]], 0) + memory.offset
        return memory.number if memory.kind == "weight" else 0

    def _base(self, memory: Memory) -> int | None:
        """The word to add to :meth:`_address`; None for inputs and outputs, set in each run."""
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
                values.append((_TENSOR, 8 * self._tensor(x), FRAME))
            elif isinstance(x, Slot):
                values.append((_INT, 0, self._source_word(x)))
            else:
                values.append((_INT, x, -1))
        first = self._add([word for kind, value, _ in values for word in (kind, value)])
        bases = [base for _, _, base in values]
        self.fixups += [(first + 2 * n + 1, base) for n, base in enumerate(bases) if base >= 0]
        self.arguments[operands] = first

    # ---- the functions -----------------------------------------------------------------------

    def function(self, name: str, body: Callable[[_Writer], None]) -> Any:
        b = Builder(CpuLoops(1))
        body(_Writer(b, b.argument("frame", (len(self.words),), "int64"), self.frame))
        return b.finish(name)

    def plan(self, w: _Writer) -> None:
        """The body of ``graphkiln_plan``."""
        w.learn_dims(self.steps)
        w.set(STATUS, w.handed_over(self.steps.verdicts))
        for slot, word in self.slots.items():
            w.set(word, w.slots[slot])
        total: Expr = index(self.static_bytes)
        for word, sizes in self.open_buffers:
            w.set(word, total)
            total = w.b.let(total + w.largest(sizes))
        w.set(SCRATCH_BYTES, total)
        for n, t in enumerate(self.steps.results):
            for axis, d in enumerate(t.shape):
                w.set(self.frame.output_dim(n, axis), w.extent(d))

    def run(self, w: _Writer) -> None:
        """The body of ``graphkiln_run``."""
        for t, at in self.tensors.items():
            if t.memory.kind == "input":
                w.set(at, w.get(self.frame.input(t.memory.number)))
            elif t.memory.kind == "output":
                w.set(at, w.get(self.frame.output(t.memory.number)))
        signal = w.b.memory_at(w.get(self.stop), (1,), "int64")
        run = _Run(w, w.get(FRAME), w.b.scalar("int32", 0), signal)
        self._emit(run, self.steps.steps)
        w.set(STATUS, index(run.status.get()))

    def _emit(self, run: _Run, steps: Sequence[Step]) -> None:
        b = run.writer.b
        for step in steps:
            match step:
                case KernelCall(kernel, operands):
                    self._emit_call(run, kernel, operands)
                case Branch(condition, then, orelse):
                    with b.when(run.writer.flag(self.tensors[condition])):
                        self._emit(run, then)
                    with b.otherwise():
                        self._emit(run, orelse)
                case BailOutIf(verdict):
                    verdict_word = run.writer.get(self._source_word(verdict))
                    with b.when(tirx.NE(verdict_word, index(0))):
                        run.writer.set(STATUS, index(BAILED_OUT))
                        b.leave()
                case BailOut():
                    run.writer.set(STATUS, index(BAILED_OUT))
                    b.leave()

    def _emit_call(self, run: _Run, kernel: str, operands: tuple[Tensor | DimSlot, ...]) -> None:
        # Addresses are passed as 64-bit integers: the calling convention makes no difference.
        code = tirx.call_extern(
            "int32", _SYMBOL + kernel, index(0), run.frame + 8 * self.arguments[operands],
            tirx.const(len(operands), "int32"), run.frame + 8 * self.result_word,
        )  # fmt: skip
        run.status.set(tirx.bitwise_or(run.status.get(), code))
        handle_signals(run.writer.b, run.signal)


@dataclass(frozen=True)
class _Run:
    """What the code of a run works with: the frame's address, what kernels returned, signals."""

    writer: _Writer
    frame: Expr
    status: Scalar
    signal: BufferTensor


class _Writer:
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
        return content[0] != tirx.const(0, "uint8")

    def extent(self, d: Extent) -> Expr:
        if isinstance(d, Slot):
            return self.slots[d.index]
        if isinstance(d, InputDim):
            return self.get(self.frame.input_dim(d.number, d.axis))
        return index(d)

    def learn_dims(self, steps: StraightLine) -> None:
        """Give the slots their values."""
        for step in steps.dims:
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

    def handed_over(self, verdicts: Sequence[Slot]) -> Expr:
        """The status before a run: bailed out where one of these slots is not 0."""
        status: Expr = index(0)
        for verdict in verdicts:
            wrong = tirx.NE(self.slots[verdict.index], index(0))
            status = self.b.let(tirx.Select(wrong, index(BAILED_OUT), status))
        return status

    def largest(self, sizes: Sequence[DimSlot]) -> Expr:
        """The largest of these sizes in bytes, rounded up to the alignment."""
        most: Expr = index(0)
        for size in sizes:
            most = self.b.let(tirx.max(most, self.extent(size)))
        most = tirx.min(most, index(MOST_BYTES))
        units = tirx.floordiv(most + (ALIGNMENT - 1), index(ALIGNMENT))
        return units * ALIGNMENT


def share_memory(pieces: Sequence[Scratch]) -> tuple[dict[int, int], list[list[DimSlot]]]:
    """Assign scratch pieces to buffers such that no two in one buffer are live at once.

    Returns the buffer of each piece that is used, and the sizes of the pieces of each buffer. It is
    a linear scan over the steps: a piece takes a free buffer that held one of its own size, or else
    any free one, or else a new one. Three pieces of ``4*N`` bytes, live in steps 0 to 1, 1 to 2 and
    2 to 3, need two buffers; the third takes that of the first.
    """
    homes: dict[int, int] = {}
    buffers: list[list[DimSlot]] = []
    busy_until: list[int] = []
    used = [n for n, p in enumerate(pieces) if p.start >= 0]
    for n in sorted(used, key=lambda n: pieces[n].start):
        piece = pieces[n]
        free = [r for r, end in enumerate(busy_until) if end < piece.start]
        buffer = next((r for r in free if piece.size in buffers[r]), free[0] if free else None)
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


__all__ = ["FUNCTIONS", "Native", "native_object", "native_of", "share_memory"]
