"""Reads loops as straight-line programs; :mod:`.loop_program` says what becomes of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..contract import ALIGNMENT, HOST
from ..ir.storage import storage_name
from ..ir.types import TensorType
from .dim_slots import size_of
from .loop_program import (
    Carry,
    LoopForm,
    LoopProgram,
    ScanInput,
    Scanned,
    ScanOutput,
    item_bytes,
)
from .lowering_state import LoweringState
from .program import DimSlot, LoadWeight, Reg, Slot, instruction_count
from .straight_line import (
    Branch,
    Extent,
    Foreign,
    KernelCall,
    Memory,
    Reader,
    Scratch,
    StraightLine,
    Tensor,
    map_tensors,
    operands_of,
    set_lifetimes,
    walk,
)

MOST_INSTRUCTIONS = 1_000
"""Bodies with more take so long that the virtual machine's overhead does not show."""


class LoopReader:
    """Makes a :class:`LoopProgram` of a loop, and emits what allocates its arguments.

    ``sources`` are the registers of the arguments, ``results`` those of what is carried out.
    """

    def __init__(self, name: str, loop: LoopForm, state: LoweringState) -> None:
        self.loop = loop
        self.state = state
        self.sources: list[Reg] = []
        self.results: list[Reg] = []
        self._reader = Reader(state.dims.kernels, self._weight, depth=1)
        self._reader.held.update(state.builder.dim_slots)
        self.program = LoopProgram(name, self._reader.program)
        self._weights: dict[int, Tensor] = {}
        self._moved: dict[Memory, Memory] = {}
        self._lasting: set[Memory] = set()

    def read(self) -> None:
        """Raises :class:`.Foreign` where the loop has no native code."""
        if instruction_count(self.loop.block) > MOST_INSTRUCTIONS:
            raise Foreign("a long body")
        initial = self._arguments()
        body = self.program.body
        steps = self._reader.block(self.loop.block)
        turned, rows = self._leavings(initial)
        body.steps = map_tensors(steps, self._settled)
        if not steps:  # without a call in the loop, compilers read the word to poll once
            raise Foreign("a body without kernels")
        if self.loop.going is not None:
            self.program.going = self._settled(self._reader.tensor(self.loop.going))
        self._require_host(body)
        set_lifetimes(body)
        if _is_open_in_branch(body):
            raise Foreign("sizes in a branch")
        self._carries(initial, turned)
        self._outputs(rows)
        self._keep_to_the_end()

    def _require_host(self, body: StraightLine) -> None:
        kernels = self.state.kernels.kernels
        calls = [step for step in walk(body.steps) if isinstance(step, KernelCall)]
        if any(kernels[call.kernel].device != HOST for call in calls):
            raise Foreign("kernels on another device than the host")

    def _keep_to_the_end(self) -> None:
        """Let memory last that is used by more than the steps of the body."""
        program, pieces = self.program, self.program.body.pieces
        last = sum(1 for _ in walk(program.body.steps))
        for memory in self._lasting:
            pieces[memory.number].start, pieces[memory.number].end = 0, last
        read = [c.turned for c in program.carries] + [o.part for o in program.outputs]
        for t in [*read, program.going]:
            if t is not None and t.memory.kind == "piece":
                pieces[t.memory.number].end = last

    # ---- what the loop reads -----------------------------------------------------------------

    def _arguments(self) -> list[Tensor]:
        """Tell what the registers hold that the body reads; returns the initial values."""
        loop, held = self.loop, self._reader.held
        limit = loop.limit
        self.program.limit = (
            self._argument((), "int64", limit) if isinstance(limit, Reg)
            else None if limit is None else self.state.dims.of(limit)
        )  # fmt: skip
        if loop.start is not None:
            self.program.start = self._argument((), "bool", loop.start)
        initial = [self._typed(t, r) for t, r in zip(loop.types, loop.initial, strict=True)]
        for i, (reg, t) in enumerate(zip(loop.carried, initial, strict=True)):
            held[reg] = replace(t, memory=Memory("carried", i))
        for reg, kind in loop.captured:
            held[reg] = self._typed(kind, reg)
        for c in loop.cut:
            held[c.part] = self._part(c)
        if loop.iteration is not None:
            held[loop.iteration] = Tensor(Memory("iteration", 0), (), "int64")
        if loop.condition is not None:
            held[loop.condition] = Tensor(Memory("condition", 0), (), "bool")
        return initial

    def _described(self, t: TensorType) -> tuple[tuple[DimSlot, ...], str]:
        return self.state.dims.shape(t), storage_name(t.dtype.name)

    def _argument(self, shape: tuple[Extent, ...], dtype: str, source: Reg) -> Tensor:
        self.sources.append(source)
        return self.program.argument(shape, dtype)

    def _typed(self, t: TensorType, source: Reg) -> Tensor:
        return self._argument(*self._described(t), source)

    def _weight(self, number: int) -> Tensor:
        """A constant of the body, which becomes an argument."""
        if number not in self._weights:
            builder = self.state.builder
            reg = builder.new_reg()
            builder.emit(LoadWeight(reg, number))
            array = builder.weights[number][1]
            dtype = storage_name(array.dtype.name)
            self._weights[number] = self._argument(array.shape, dtype, reg)
        return self._weights[number]

    def _part(self, c: Scanned) -> Tensor:
        """An iteration's part of a scanned input: where it lies, or in memory of its own."""
        assert c.whole is not None
        whole = self._typed(c.whole_type, c.whole)
        part = Tensor(Memory("slice", len(self.program.inputs)), *self._described(c.part_type))
        if c.axis != 0 or not lies_aligned(part):
            part = self._lasting_piece(c.part_type)
        self.program.inputs.append(ScanInput(whole, part, c.axis, c.backwards))
        return part

    def _lasting_piece(self, t: TensorType) -> Tensor:
        """Memory for a tensor that nothing else uses in the body."""
        pieces = self.program.body.pieces
        memory = Memory("piece", len(pieces))
        pieces.append(Scratch(self.state.dims.of(size_of(t))))
        self._lasting.add(memory)
        return Tensor(memory, *self._described(t))

    # ---- what an iteration leaves ------------------------------------------------------------

    def _leavings(self, initial: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """What is carried on and what is stacked, and where both are written."""
        turned = [self._reader.tensor(r) for r in self.loop.turned]
        rows = [self._reader.tensor(s.part) for s in self.loop.stacked]
        for i, (t, before) in enumerate(zip(turned, initial, strict=True)):
            if (t.shape, t.dtype) != (before.shape, before.dtype):
                raise Foreign("shapes that change")
            if self._is_own(t):
                self._moved[t.memory] = Memory("turned", i)
        for i, (s, row) in enumerate(zip(self.loop.stacked, rows, strict=True)):
            if (row.shape, row.dtype) != self._described(s.part_type):
                raise Foreign("shapes that change")
            if self._is_own(row) and s.axis == 0 and lies_aligned(row):
                self._moved[row.memory] = Memory("row", i)
        return list(map(self._settled, turned)), list(map(self._settled, rows))

    def _is_own(self, t: Tensor) -> bool:
        """Does it fill memory in which no other result is found so far?"""
        memory = t.memory
        taken = memory in self._moved or memory in self._lasting
        return memory.kind == "piece" and memory.offset == 0 and not taken

    def _settled(self, t: Tensor) -> Tensor:
        return replace(t, memory=self._moved.get(t.memory, t.memory))

    def _carries(self, initial: Sequence[Tensor], turned: Sequence[Tensor]) -> None:
        """Add what is carried, and memory for its results."""
        copied = {i for i, t in enumerate(turned) if t.memory != Memory("turned", i)}
        for i, (before, t) in enumerate(zip(initial, turned, strict=True)):
            kind = self.loop.types[i]
            reg = self.state.kernels.allocate(kind)
            self.results.append(reg)
            source = t.memory
            crossed = source.kind == "carried" and source.number in copied - {i}
            spare = None if i in copied else self._lasting_piece(kind)
            staged = self._lasting_piece(kind) if crossed else None
            result = self._typed(kind, reg)
            self.program.carries.append(Carry(before, result, t, spare, staged))

    def _outputs(self, rows: Sequence[Tensor]) -> None:
        """Add what is stacked; ``sources`` get registers that nothing has been put into yet."""
        program, dims = self.program, self.state.dims
        held: Slot | None = None
        if rows and self.loop.rows is None:
            program.rows, held = dims.new_slot(), dims.new_slot()
        elif rows and self.loop.rows is not None:
            program.rows = dims.of(self.loop.rows)
        for s, row in zip(self.loop.stacked, rows, strict=True):
            assert program.rows is not None
            whole, before = (
                None if n is None else self._argument(
                    (*row.shape[: s.axis], n, *row.shape[s.axis :]), row.dtype,
                    self.state.builder.new_reg(),
                )
                for n in (program.rows, held)
            )  # fmt: skip
            assert whole is not None
            program.outputs.append(ScanOutput(whole, row, s.axis, s.backwards, before))


def lies_aligned(part: Tensor) -> bool:
    """Do parts of this type that follow one another begin at aligned addresses?"""
    count = 1
    for d in part.shape:
        if not isinstance(d, int):
            return False
        count *= d
    return count * item_bytes(part.dtype) % ALIGNMENT == 0


def _is_open_in_branch(body: StraightLine) -> bool:
    """Does a branch use scratch memory whose size only a run tells?

    Sizes may be absurd where the branch is not taken, so they must not be allocated beforehand.
    """
    return any(
        isinstance(t, Tensor) and t.memory.kind == "piece"
        and not isinstance(body.pieces[t.memory.number].size, int)
        for branch in body.steps if isinstance(branch, Branch)
        for step in walk((branch,))
        for t in operands_of(step)
    )  # fmt: skip


__all__ = ["LoopReader", "lies_aligned"]
