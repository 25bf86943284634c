"""Calls of loops' functions: memory for them, and what runs where they leave off."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..contract import LOOPS
from ..ir.dims import Dim, sym
from .dim_slots import size_of
from .loop_code import LoopCode
from .loop_program import LoopForm
from .loops import LoopReader
from .lowering_state import LoweringState
from .program import (
    AllocStorage,
    BindSizes,
    CallLoop,
    Copy,
    DimSlot,
    If,
    Instruction,
    Kill,
    Loop,
    MakeTensor,
    Operand,
    Reg,
    SignalWord,
    Slot,
    View,
)
from .scalar_calls import clipped, constant_scalar
from .straight_line import Foreign, InputDim, Tensor

MOST_ROOM = 1 << 18
"""Bytes of a scan output that are allocated before it is known how many there will be."""

_ROWS = "rows"
_FEW = 64
"""Rows that are allocated where their size is not known either."""


def call_loop(
    state: LoweringState, form: Callable[[], LoopForm], otherwise: Sequence[Instruction],
    results: Sequence[Reg],
) -> list[Reg] | None:  # fmt: skip
    """Emit a loop as a call of a function of its own, if it can be one; returns its results.

    ``form`` raises :class:`.Foreign` where it cannot. ``otherwise`` are instructions of the same
    loop, which leave ``results``.
    """
    if state.loops is None:
        return None
    with state.builder.nested() as block:
        try:
            found = _call(state, form(), otherwise, results)
        except Foreign:
            found = None
    if found is not None:
        for instruction in block:
            state.builder.emit(instruction)
    return found


def _call(
    state: LoweringState, form: LoopForm, otherwise: Sequence[Instruction], results: Sequence[Reg]
) -> list[Reg]:
    assert state.loops is not None
    reader = LoopReader(f"{LOOPS}{len(state.loops)}", form, state)
    reader.read()
    code = LoopCode(reader.program)
    state.loops[reader.program.name] = code
    call = _Call(state, form, reader, code)
    found = [*reader.results, *call.stacked]
    copies = [Copy(a, b) for a, b in zip(found, results, strict=True)]
    call.emit((*otherwise, *copies))
    return found


class _Call:
    """The call of one loop; ``stacked`` are the registers of what it stacks."""

    def __init__(
        self, state: LoweringState, form: LoopForm, reader: LoopReader, code: LoopCode
    ) -> None:
        self.state, self.form, self.reader, self.code = state, form, reader, code
        self.builder = state.builder
        self.program = reader.program
        self.whole = [self._source(o.whole) for o in self.program.outputs]
        grows = self.program.grows
        self.stacked = [self.builder.new_reg() for _ in self.whole] if grows else self.whole
        self._own: list[Reg] = []

    def _source(self, t: Tensor) -> Reg:
        return self.reader.sources[t.memory.number]

    def emit(self, otherwise: tuple[Instruction, ...]) -> None:
        """Emit allocations and the call, or calls."""
        if self.program.grows:
            self._grow(otherwise)
        else:
            self._allocate_outputs()
            done, given = self._prepare()
            self._run(done, given, otherwise)
        for reg in self._own:
            self.builder.emit(Kill(reg))

    # ---- memory ------------------------------------------------------------------------------

    def _storage(self, size: DimSlot) -> Reg:
        storage = self.builder.new_reg()
        self.builder.emit(AllocStorage(storage, size))
        return storage

    def _memory(self, size: DimSlot, shape: tuple[DimSlot, ...], dtype: str) -> Reg:
        """A tensor in memory that is freed after the call."""
        storage, reg = self._storage(size), self.builder.new_reg()
        self.builder.emit(MakeTensor(reg, storage, 0, shape, dtype))
        self.builder.emit(Kill(storage))
        self._own.append(reg)
        return reg

    def _place(self, reg: Reg, storage: Reg, t: Tensor, rows: DimSlot, axis: int) -> None:
        """Make a register a tensor like ``t`` with so many rows, at the start of a storage."""
        others = [d for d in t.shape if not isinstance(d, InputDim)]
        shape = (*others[:axis], rows, *others[axis + 1 :])
        self.builder.emit(MakeTensor(reg, storage, 0, shape, t.dtype))

    def _allocate_outputs(self) -> None:
        for o, s in zip(self.program.outputs, self.form.stacked, strict=True):
            assert self.program.rows is not None
            storage = self._storage(self.state.dims.of(size_of(s.whole_type)))
            self._place(self._source(o.whole), storage, o.whole, self.program.rows, o.axis)
            self.builder.emit(Kill(storage))

    # ---- calls -------------------------------------------------------------------------------

    def _prepare(self, *results: Reg) -> tuple[Reg, list[Operand]]:
        """Allocate what the function works on; gives ``done`` and all arguments but dims."""
        code, name = self.code, self.program.name
        frame = self._memory(code.frame_bytes, (code.frame_bytes // 8,), "int64")
        tables = [
            self.builder.table(f"{name} {what}", array)
            for what, array in (("frame", code.template), ("fixups", code.fixup_pairs))
        ]
        done = self._memory(1, (), "bool")
        buffers = [self._memory(size, (size,), "uint8") for size in code.buffers]
        sources = self.reader.sources
        return done, [frame, *tables, SignalWord(), done, *results, *sources, *buffers]

    def _run(self, done: Reg, given: list[Operand], otherwise: tuple[Instruction, ...]) -> None:
        dims = [self.builder.read_slot(Slot(n)) for n in self.code.slots_taken]
        arguments, steady = (*given, *dims), self.form.is_steady
        self.builder.emit(CallLoop(self.program.name, arguments, done, otherwise, steady))

    # ---- outputs that grow -------------------------------------------------------------------

    def _grow(self, otherwise: tuple[Instruction, ...]) -> None:
        """Call the function until it is through, each time with room for twice as many rows."""
        builder, outputs = self.builder, self.program.outputs
        rows, held = self._room()
        storages = [builder.new_reg() for _ in outputs]
        sizes = [self.state.dims.new_slot() for _ in outputs]
        zero, count = constant_scalar(self.state.kernels, 0), builder.new_reg()
        builder.emit(View(count, zero, (1,)))
        more = self._memory(1, (), "bool")
        done, given = self._prepare(count, more)

        def allocate(growth: int) -> None:
            """Let ``rows`` grow, and allocate outputs for as many."""
            number: Dim = sym(_ROWS)
            targets = {held: number, rows: growth * number} if growth > 1 else {held: number}
            for size, s in zip(sizes, self.form.stacked, strict=True):
                targets[size] = growth * number * size_of(s.part_type)
            self.state.dims.compute(targets, {_ROWS: rows})
            for o, storage, size in zip(outputs, storages, sizes, strict=True):
                builder.emit(AllocStorage(storage, size))
                self._place(self._source(o.whole), storage, o.whole, rows, o.axis)

        def keep() -> None:
            for o in outputs:
                assert o.before is not None
                builder.emit(Copy(self._source(o.before), self._source(o.whole)))

        allocate(1)
        keep()
        with builder.nested() as test:
            self._run(done, given, ())
        with builder.nested() as again:
            keep()
            allocate(2)
        builder.emit(Loop(tuple(test), more, tuple(again)))
        with builder.nested() as through:
            found = self.state.dims.new_slot()
            builder.emit(BindSizes(count, (found,)))
            for reg, o, storage in zip(self.stacked, outputs, storages, strict=True):
                self._place(reg, storage, o.whole, found, o.axis)
        builder.emit(If(done, tuple(through), otherwise))
        for o in outputs:
            assert o.before is not None
            self._own += [self._source(o.whole), self._source(o.before)]
        self._own += [*storages, zero, count]

    def _room(self) -> tuple[Slot, Slot]:
        """Slots of the rows to begin with, and of those before; the first gets its value."""
        kernels = self.state.kernels
        (o, *_) = self.program.outputs
        assert isinstance(self.program.rows, Slot) and o.before is not None
        held = o.before.shape[o.axis]
        assert isinstance(held, Slot)
        sizes = [size_of(s.part_type) for s in self.form.stacked]
        known = [max(1, s) for s in sizes if isinstance(s, int)]
        most = max(1, MOST_ROOM // max(known)) if len(known) == len(sizes) else _FEW
        if isinstance(self.form.limit, Reg):
            rows = clipped(kernels, self.form.limit, 1, most)
        else:
            rows = constant_scalar(kernels, most)
        vector = self.builder.new_reg()
        self.builder.emit(View(vector, rows, (1,)))
        self.builder.emit(BindSizes(vector, (self.program.rows,)))
        self._own += [rows, vector]
        return self.program.rows, held


__all__ = ["MOST_ROOM", "call_loop"]
