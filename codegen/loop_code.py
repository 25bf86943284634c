"""The function of a loop: the frame that its kernels' arguments are in, and its code.

See :mod:`.loop_program` for what it does, and :mod:`.frame_code` for frames. The frame is the
function's first argument, uninitialised memory with room for scratch buffers behind it. The
template and the fixups follow. Other arguments are the word to poll for signals, the results
``done`` and, where scan outputs grow, ``count`` and ``more``, the loop's own tensors, buffers, and
dims.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import tvm
from tvm import tirx

from ..contract import ALIGNMENT, FRAME, SCRATCH, SPELLED_OUT, Frame
from ..targets.base import Target
from ..targets.tir.builder import BufferTensor, Builder, Scalar
from ..targets.tir.cpu_loops import CpuLoops
from ..targets.tir.extents import index, product
from .build import object_of
from .dim_slots import DimKernel
from .frame_code import FrameWords, FrameWriter, StepWriter
from .loop_program import Carry, LoopProgram, ScanInput, ScanOutput, item_bytes
from .program import DimSlot, Slot
from .signals import handle_signals
from .straight_line import Extent, Memory, Tensor

Expr: TypeAlias = Any

_WORD = 8
_MOST = (1 << 63) - 1


class LoopCode(FrameWords):
    """The frame of a loop.

    ``buffers`` are sizes of the memory that it takes beside the frame, whose addresses are in
    ``buffer_words``, and ``bases`` the words with the addresses of arguments.
    """

    def __init__(self, program: LoopProgram) -> None:
        self.buffers: list[DimSlot] = []
        self.buffer_words: list[int] = []
        self.bases: dict[Memory, int] = {}
        super().__init__(Frame((), ()), program.body.pieces, mixed=False)
        self.program = program
        self.iteration = self.add([0])
        self.condition = self.add([1])
        self.signal = self.add([0])
        self.add_steps(program.body.steps)
        self.now = [self.add([0]) for _ in program.carries]
        self.next = [self.add([0]) for _ in program.carries]
        self._add_copied()

    def _add_copied(self) -> None:
        p = self.program
        tensors = [p.going, *(i.part for i in p.inputs), *(o.part for o in p.outputs)]
        for c in p.carries:
            tensors += [c.turned, c.spare, c.staged]
        for t in tensors:
            if t is not None:
                self.tensor(t)

    def open_place(self, sizes: list[DimSlot]) -> int:
        (size,) = sizes
        self.buffers.append(size)
        self.buffer_words.append(self.add([0]))
        return self.buffer_words[-1]

    def address(self, memory: Memory) -> int:
        own = {"iteration": self.iteration, "condition": self.condition}.get(memory.kind)
        return super().address(memory) if own is None else _WORD * own

    def base(self, memory: Memory) -> int | None:
        if memory.kind in ("iteration", "condition"):
            return FRAME
        if memory.kind == "signal":
            return self.signal
        if memory.kind == "argument":
            if memory not in self.bases:
                self.bases[memory] = self.add([0])
            return self.bases[memory]
        return super().base(memory)

    @property
    def frame_words(self) -> int:
        """Words of the frame, padded so that scratch memory can follow it."""
        unit = ALIGNMENT // _WORD
        return -(-len(self.words) // unit) * unit

    @property
    def frame_bytes(self) -> int:
        """Bytes of the frame and of scratch memory of static size."""
        return _WORD * self.frame_words + self.static_bytes

    @property
    def template(self) -> np.ndarray:
        """int64[words]: what the frame begins as."""
        return np.array(self.words, np.int64)

    @property
    def fixup_pairs(self) -> np.ndarray:
        """int64[fixups, 2]: pairs (word, word to add to it)."""
        return np.array(self.fixups, np.int64).reshape(-1, 2)

    @cached_property
    def slots_taken(self) -> list[int]:
        """The slots whose values are arguments, in order."""
        p = self.program
        extents: list[object] = [*self.buffers, p.limit, p.rows]
        for t in (*p.arguments, *(i.part for i in p.inputs)):
            extents += t.shape
        found = {d.index for d in extents if isinstance(d, Slot)}
        found |= {slot for kernel in self.kernels for _, slot in kernel.symbols}
        decided = {k.verdict.slot for k in self.kernels if k.verdict is not None}
        return sorted((found | self.slots.keys()) - decided)

    @property
    def kernels(self) -> list[DimKernel]:
        """What decides the conditions of the body."""
        return [k for k in self.program.body.dims if isinstance(k, DimKernel)]

    def users(self, memory: Memory) -> list[tuple[int, int]]:
        """Words that hold the address of a tensor in this memory, and its offset there."""
        return [(at, t.memory.offset) for t, at in self.tensors.items()
                if (t.memory.kind, t.memory.number) == (memory.kind, memory.number)]  # fmt: skip


def loop_object(code: LoopCode, target: Target) -> bytes:
    """The object file of a loop's function."""
    name = code.program.name
    module = tvm.IRModule({name: _LoopWriter(code).function(name)})
    return object_of(module, target.host, asserts=True)


class _LoopWriter:
    """Writes the function."""

    def __init__(self, code: LoopCode) -> None:
        self.code, self.program = code, code.program
        b = self.b = Builder(CpuLoops(1))
        words = b.argument("frame", (code.frame_bytes // _WORD,), "int64")
        self.w = FrameWriter(b, words, code.frame)
        self.template = b.argument("template", code.template.shape, "int64")
        self.fixups = b.argument("fixups", code.fixup_pairs.shape, "int64")
        self.signal = b.argument("signal", (1,), "int64")
        self.done = b.argument("done", (), "bool")
        if self.program.grows:
            self.count = b.argument("count", (1,), "int64")
            self.more = b.argument("more", (), "bool")
        self.w.slots = {n: b.symbol(f"s{n}") for n in code.slots_taken}
        self.arguments = [
            b.argument(f"a{n}", tuple(map(self.w.extent, t.shape)), t.dtype)
            for n, t in enumerate(self.program.arguments)
        ]
        self.buffers = [
            b.argument(f"b{n}", (self.w.extent(size),), "uint8")
            for n, size in enumerate(code.buffers)
        ]

    def function(self, name: str) -> Any:
        b, p = self.b, self.program
        # What is left early is not through, and asks for no more rows.
        for answer in (self.done, self.more) if p.grows else (self.done,):
            answer.store((), tirx.const(False, "bool"))
        with b.when(self.signal[0].equal(index(SPELLED_OUT))):
            b.leave()
        first = b.let(self.count[0]) if p.grows else index(0)
        with b.when(first.equal(index(0)) if p.grows else None):
            self._prepare()
        if p.grows:
            with b.otherwise():
                self._move_rows(first)
        self._point_at_carried()
        limit = self._limit()
        end = limit if p.rows is None else b.let(tirx.min(limit, self.w.extent(p.rows)))
        turn = b.scalar("int64", first)
        going = b.scalar("bool", tirx.const(True, "bool"))
        if p.start is not None:
            starts = self.arguments[p.start.memory.number].at()
            going.set(starts if not p.grows else tirx.any(first > index(0), starts))
        with b.while_(tirx.all(turn.get() < end, going.get())):
            self._iteration(turn, going)
        self._finish(turn, going, limit)
        return b.finish(name)

    # ---- before the first iteration ----------------------------------------------------------

    def _prepare(self) -> None:
        """Fill in the frame."""
        b, w, code = self.b, self.w, self.code
        with b.loop(len(code.words)) as i:
            w.words.store((i,), self.template[i])
        w.set(FRAME, _address(w.words))
        w.set(SCRATCH, _address(w.words) + _WORD * code.frame_words)
        for memory, word in code.bases.items():
            w.set(word, _address(self.arguments[memory.number]))
        w.set(code.signal, _address(self.signal))
        for word, buffer in zip(code.buffer_words, self.buffers, strict=True):
            w.set(word, _address(buffer))
        w.learn_dims(code.kernels)
        for slot, word in code.slots.items():
            w.set(word, w.slots[slot])
        with b.loop(len(code.fixups)) as i:
            word = b.let(self.fixups[i, 0])
            w.words.store((word,), w.words[word] + w.words[b.let(self.fixups[i, 1])])
        for c, now, after in zip(self.program.carries, code.now, code.next, strict=True):
            w.set(now, self._argument(c.initial))
            w.set(after, self._argument(c.result))

    def _move_rows(self, count: Expr) -> None:
        """Copy what is stacked so far to memory that has room for more."""
        for output in self.program.outputs:
            assert output.before is not None
            size = count * self._bytes(output.part)
            self._copy(self._argument(output.whole), self._argument(output.before), size)

    def _limit(self) -> Expr:
        limit = self.program.limit
        if isinstance(limit, Tensor):
            return self.b.let(self.arguments[limit.memory.number].at())
        return index(_MOST) if limit is None else self.w.extent(limit)

    def _point_at_carried(self) -> None:
        for i, c in enumerate(self.program.carries):
            self._point(Memory("carried", i), self.w.get(self.code.now[i]))
            if c.spare is not None:
                self._point(Memory("turned", i), self.w.get(self.code.next[i]))

    # ---- an iteration ------------------------------------------------------------------------

    def _iteration(self, turn: Scalar, going: Scalar) -> None:
        b, w, code, p = self.b, self.w, self.code, self.program
        now = b.let(turn.get())
        w.set(code.iteration, now)
        for scan in p.inputs:
            self._read_part(scan, now)
        copied = []
        for i, output in enumerate(p.outputs):
            if output.part.memory == Memory("row", i):
                self._point(output.part.memory, self._place(output, now))
            else:
                copied.append(output)
        status = b.scalar("int32", 0)
        address = w.get(FRAME)
        # The compiler takes the argument for memory that nobody else writes to.
        signal = b.memory_at(w.get(code.signal), (1,), "int64")
        StepWriter(code, w, address, status, signal, b.leave).write(p.body.steps)
        with b.when(tirx.NE(status.get(), tirx.const(0, "int32"))):
            b.leave()
        for output in copied:
            self._write_part(output, now)
        if p.going is not None:
            going.set(w.flag(code.tensors[p.going]))
        self._carry_on(now)
        turn.set(now + index(1))
        handle_signals(b, signal)

    def _read_part(self, scan: ScanInput, now: Expr) -> None:
        if scan.part.memory.kind == "slice":
            self._point(scan.part.memory, self._place(scan, now))
            return
        part = self.w.get(self.code.tensors[scan.part])
        for place, offset, size in self._rows(scan, now):
            self._copy(part + offset, place, size)

    def _write_part(self, scan: ScanOutput, now: Expr) -> None:
        part = self.w.get(self.code.tensors[scan.part])
        for place, offset, size in self._rows(scan, now):
            self._copy(place, part + offset, size)

    def _place(self, scan: ScanInput | ScanOutput, now: Expr) -> Expr:
        """The address of the iteration's part of a whole that is cut along its first axis."""
        return self.b.let(
            self._argument(scan.whole) + self._position(scan, now) * self._bytes(scan.part)
        )

    def _position(self, scan: ScanInput | ScanOutput, now: Expr) -> Expr:
        if not scan.backwards:
            return now
        return self.w.extent(scan.whole.shape[scan.axis]) - index(1) - now

    def _rows(self, scan: ScanInput | ScanOutput, now: Expr) -> Iterator[tuple[Expr, Expr, Expr]]:
        """The pieces that the iteration's part lies in: address, byte offset in the part, bytes."""
        b, axis = self.b, scan.axis
        inner = b.let(self._bytes(scan.part, axis))
        length = self.w.extent(scan.whole.shape[axis])
        position = b.let(self._position(scan, now))
        whole = self._argument(scan.whole)
        with b.loop(self._product(scan.part.shape[:axis])) as i:
            yield whole + (i * length + position) * inner, i * inner, inner

    def _carry_on(self, now: Expr) -> None:
        """Give the next iteration what this one leaves."""
        b, w, code = self.b, self.w, self.code
        copied = [
            (i, c) for i, c in enumerate(self.program.carries)
            if c.spare is None and c.turned.memory != Memory("carried", i)
        ]  # fmt: skip
        # Sources are copied before anything that they may lie in is written.
        for _, c in copied:
            if c.staged is not None:
                self._copy(
                    w.get(code.tensors[c.staged]),
                    w.get(code.tensors[c.turned]),
                    self._bytes(c.turned),
                )
        for i, c in copied:
            result = b.let(self._argument(c.result))
            source = c.turned if c.staged is None else c.staged
            self._copy(result, w.get(code.tensors[source]), self._bytes(source))
            w.set(code.now[i], result)
            self._point(Memory("carried", i), result)
        for i, c in enumerate(self.program.carries):
            if c.spare is not None:
                self._swap(i, w.get(code.tensors[c.spare]), now)

    def _swap(self, i: int, spare: Expr, now: Expr) -> None:
        """Let the two buffers of what is carried change places; initial values are only read."""
        b, w, code = self.b, self.w, self.code
        old, new = w.get(code.now[i]), w.get(code.next[i])
        free = b.let(tirx.Select(now.equal(index(0)), spare, old))
        w.set(code.now[i], new)
        w.set(code.next[i], free)
        self._point(Memory("carried", i), new)
        self._point(Memory("turned", i), free)

    # ---- after the last iteration ------------------------------------------------------------

    def _finish(self, turn: Scalar, going: Scalar, limit: Expr) -> None:
        b, p = self.b, self.program
        wants = tirx.all(turn.get() < limit, going.get())
        if p.grows:
            self.count.store((0,), turn.get())
            self.more.store((), wants)
        elif p.rows is not None:
            # The number of iterations is another than that of the rows, which were computed before.
            with b.when(tirx.any(tirx.NE(turn.get(), self.w.extent(p.rows)), wants)):
                b.leave()
        with b.when(tirx.Not(wants) if p.grows else None):
            for c, now in zip(p.carries, self.code.now, strict=True):
                self._settle(c, self.w.get(now))
        self.done.store((), tirx.const(True, "bool"))

    def _settle(self, c: Carry, now: Expr) -> None:
        """Put what the last iteration left where the result is to be."""
        result = self.b.let(self._argument(c.result))
        with self.b.when(tirx.NE(now, result)):
            self._copy(result, now, self._bytes(c.result))

    # ---- addresses and sizes -----------------------------------------------------------------

    def _argument(self, t: Tensor) -> Expr:
        return _address(self.arguments[t.memory.number])

    def _point(self, memory: Memory, address: Expr) -> None:
        """Let all tensors in this memory lie at an address."""
        for word, offset in self.code.users(memory):
            self.w.set(word, address + index(offset))

    def _product(self, shape: Sequence[Extent]) -> Expr:
        return index(product([self.w.extent(d) for d in shape]))

    def _bytes(self, t: Tensor, axis: int = 0) -> Expr:
        """Bytes of the axes of a tensor from one on."""
        return self._product(t.shape[axis:]) * index(item_bytes(t.dtype))

    def _copy(self, to: Expr, source: Expr, size: Expr) -> None:
        # By a call, since the compiler takes memory that it knows by two names for two memories.
        self.b.evaluate(tirx.call_extern("int64", "memcpy", to, source, size))


def _address(t: BufferTensor) -> Expr:
    """The address of a tensor's first element."""
    return tirx.reinterpret("int64", tirx.address_of(t.load_raw([index(0)] * t.rank)))


__all__ = ["LoopCode", "loop_object"]
