"""Programs as bytecode of the Relax virtual machine.

The bytecode is assembled directly rather than from a Relax function, because that has no loops and
no tensors at given offsets of a storage, which the memory plan needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import tvm
from tvm.relax import ExecBuilder

from ..contract import HOST, HOST_FUNCTIONS, STEP
from .attributes import attributes_json
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
    GetItem,
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
    ShapeConst,
    SignalWord,
    Slot,
    StepLoop,
    Transfer,
    View,
)
from .signals import EVERY, POLL

# Codes of vm.builtin.match_shape and vm.builtin.make_shape.
_MATCH_EQUAL, _MATCH_STORE, _MATCH_IGNORE = 0, 1, 2
_MAKE_IMM, _MAKE_LOAD = 0, 1

_INPUTS, _WEIGHTS = 0, 1  # parameter registers of main(inputs, weights)


@dataclass
class _Label:
    """A place in the bytecode that jumps go to."""


@dataclass
class _Jump:
    """A jump to a label."""

    target: _Label
    unless: int | None = None  # register of a condition: jump where it is false


@dataclass
class _CallItem:
    """A call of a function; ``dst`` is the register of its result."""

    name: str
    args: list[Any]
    dst: int | None = None


@dataclass
class _Assembler:
    """Translates instructions to ``items``, which :meth:`emit` writes out with jumps resolved.

    Machine registers: 0 and 1 are the parameters, 2 the table of dims, 3 a null, 4 to 7 are
    temporaries, 8 is the word to poll for signals, and the program's registers follow from 9 on.
    """

    ib: Any
    program: Program
    polls: bool
    calls: int = 0
    items: list[Any] = field(default_factory=list)
    constants: dict[Any, int] = field(default_factory=dict)

    @property
    def heap(self) -> int:
        return 2

    @property
    def null(self) -> int:
        return 3

    @property
    def signal(self) -> int:
        return 8

    def reg(self, r: Reg) -> int:
        return r.number + 9

    def place_of(self, space: str) -> int:
        """The number of a memory space among those that the machine is made with."""
        spaces = self.program.spaces
        return len(spaces) if space == HOST else spaces.index(space)

    def call(self, name: str, args: Sequence[Any], dst: int | None = None) -> None:
        self.items.append(_CallItem(name, list(args), dst))

    def constant(self, key: Any, value: Any) -> Any:
        if key not in self.constants:
            self.constants[key] = self.ib.convert_constant(value)
        return self.constants[key]

    def shape_const(self, dims: tuple[int, ...]) -> Any:
        return self.constant(("shape", dims), tvm.runtime.ShapeTuple(list(dims)))

    def dtype_const(self, name: str) -> Any:
        return self.constant(("dtype", name), tvm.DataType(name))

    def text_const(self, text: str) -> Any:
        return self.constant(("text", text), text)

    def shape(self, dims: tuple[DimSlot, ...], scratch: int) -> Any:
        """An operand for a shape: a constant, or register ``scratch`` filled at run time."""
        if all(isinstance(d, int) for d in dims):
            return self.shape_const(dims)  # type: ignore[arg-type]
        args = [self.ib.r(self.heap), self.ib.imm(len(dims))]
        for d in dims:
            code, value = (_MAKE_LOAD, d.index) if isinstance(d, Slot) else (_MAKE_IMM, d)
            args += [self.ib.imm(code), self.ib.imm(value)]
        self.call("vm.builtin.make_shape", args, scratch)
        return self.ib.r(scratch)

    def operand(self, x: Operand | None) -> Any:
        if x is None:
            return self.ib.r(self.null)
        if isinstance(x, Reg):
            return self.ib.r(self.reg(x))
        if isinstance(x, ShapeConst):
            return self.shape_const(x.dims)
        if isinstance(x, SignalWord):
            return self.ib.r(self.signal)
        assert isinstance(x, Imm)
        return self.ib.imm(x.value)

    # ---- instructions ------------------------------------------------------------------------

    def block(self, block: Sequence[Instruction]) -> None:
        for instruction in block:
            self.instruction(instruction)

    def instruction(self, i: Instruction) -> None:
        r, imm = self.ib.r, self.ib.imm
        match i:
            case Call(kernel, arguments):
                self.call(kernel, [self.operand(a) for a in arguments])
                self.calls += 1
                if self.calls % EVERY == 0:
                    self._poll()
            case MakeTensor(dst, storage, offset, shape, dtype):
                where = self.shape(shape, 4)
                args = [r(self.reg(storage)), imm(offset), where, self.dtype_const(dtype)]
                self.call("vm.builtin.alloc_tensor", args, self.reg(dst))
            case AllocStorage(dst, size, space):
                args = [
                    self.ib.vm_state(), self.shape((size,), 4), imm(self.place_of(space)),
                    self.dtype_const("uint8"), self.text_const("global"),
                ]  # fmt: skip
                self.call("vm.builtin.alloc_storage", args, self.reg(dst))
            case LoadInput(dst, index):
                self.call("vm.builtin.tuple_getitem", [r(_INPUTS), imm(index)], self.reg(dst))
            case Transfer(source, to):
                self.call("runtime.TVMTensorCopyFromTo", [r(self.reg(source)), r(self.reg(to))])
            case LoadWeight(dst, index):
                self.call("vm.builtin.tuple_getitem", [r(_WEIGHTS), imm(index)], self.reg(dst))
            case View(dst, source, shape):
                args = [r(self.reg(source)), self.shape(shape, 4)]
                self.call("vm.builtin.reshape", args, self.reg(dst))
            case GetItem(dst, source, index):
                args = [r(self.reg(source)), imm(index)]
                self.call("vm.builtin.tuple_getitem", args, self.reg(dst))
            case MakeTuple(dst, elements):
                args = [self.operand(e) for e in elements]
                self.call("vm.builtin.make_tuple", args, self.reg(dst))
            case ReadDim(dst, slot):
                args = [r(self.heap), imm(_MAKE_LOAD), imm(slot.index)]
                self.call("vm.builtin.make_prim_value", args, self.reg(dst))
            case ComputeDims(kernel):
                self.call(kernel, [r(self.heap)])
            case CheckSizes():
                self._check_sizes(i)
            case Copy(dst, source):
                self.call("vm.builtin.copy", [r(self.reg(source))], self.reg(dst))
            case Kill(reg):
                self.call("vm.builtin.null_value", [], self.reg(reg))
            case CallHost(dst, op, attributes, arguments):
                args = [self.text_const(attributes), *(self.operand(a) for a in arguments)]
                self.call(HOST_FUNCTIONS + op, args, self.reg(dst))
            case BindShape(source, dims, what):
                self._bind_shape(r(self.reg(source)), dims, what)
            case BindSizes(source, slots):
                self.call("vm.builtin.tensor_to_shape", [r(self.reg(source))], 4)
                self._bind_shape(r(4), slots, "sizes")
            case If(condition, then, orelse):
                self._if(condition, then, orelse)
            case Loop(test, condition, body):
                self._loop(test, condition, body)
            case StepLoop(iteration, limit, condition, test):
                operands = (SignalWord(), iteration, limit, condition, test)
                self.call(STEP, [self.operand(x) for x in operands])
            case CallLoop(loop, arguments, done, otherwise):
                self.call(loop, [self.operand(a) for a in arguments])
                self._if(done, (), otherwise)

    def _bind_shape(self, source: Any, dims: Sequence[DimSlot | None], what: str) -> None:
        args = [source, self.ib.r(self.heap), self.ib.imm(len(dims))]
        for d in dims:
            if d is None:
                code, value = _MATCH_IGNORE, 0
            elif isinstance(d, Slot):
                code, value = _MATCH_STORE, d.index
            else:
                code, value = _MATCH_EQUAL, d
            args += [self.ib.imm(code), self.ib.imm(value)]
        args.append(self.text_const(f"the shape of {what} is not what the model was compiled for"))
        self.call("vm.builtin.match_shape", args)

    def _read(self, slot: Slot, register: int) -> Any:
        args = [self.ib.r(self.heap), self.ib.imm(_MAKE_LOAD), self.ib.imm(slot.index)]
        self.call("vm.builtin.make_prim_value", args, register)
        return self.ib.r(register)

    def _check_sizes(self, i: CheckSizes) -> None:
        end = _Label()
        self._read(i.verdict, 5)
        self.items.append(_Jump(end, unless=5))
        told = {"checks": [[c.message, c.a, c.b, c.hint] for c in i.checks]}
        values = [self._read(slot, n) for slot, n in ((i.verdict, 5), (i.a, 6), (i.b, 7))]
        args = [self.text_const(attributes_json(told)), *values]
        self.call(HOST_FUNCTIONS + "RefuseSizes", args, 4)
        self.items.append(end)

    def _test(self, condition: Reg) -> int:
        self.call("vm.builtin.read_if_cond", [self.ib.r(self.reg(condition))], 5)
        return 5

    def _if(self, condition: Reg, then: Block, orelse: Block) -> None:
        otherwise, end = _Label(), _Label()
        self.items.append(_Jump(otherwise, unless=self._test(condition)))
        self.block(then)
        self.items += [_Jump(end), otherwise]
        self.block(orelse)
        self.items.append(end)

    def _loop(self, test: Block, condition: Reg, body: Block) -> None:
        start, end = _Label(), _Label()
        self.items.append(start)
        self.block(test)
        self.items.append(_Jump(end, unless=self._test(condition)))
        self.block(body)
        self.items += [_Jump(start), end]

    def _poll(self) -> None:
        if self.polls:
            self.call(POLL, [self.ib.r(self.signal)])

    # ---- emission ----------------------------------------------------------------------------

    def emit(self) -> None:
        """Write the items out, with jumps resolved to relative offsets."""
        position: dict[int, int] = {}
        at = 0
        for item in self.items:
            if isinstance(item, _Label):
                position[id(item)] = at
            else:
                at += 1
        at = 0
        for item in self.items:
            if isinstance(item, _Label):
                continue
            if isinstance(item, _Jump):
                offset = position[id(item.target)] - at
                if item.unless is None:
                    self.ib.emit_goto(offset)
                else:
                    self.ib.emit_if(self.ib.r(item.unless), offset)
            else:
                dst = None if item.dst is None else self.ib.r(item.dst)
                self.ib.emit_call(item.name, item.args, dst)
            at += 1


def assemble(program: Program, polls: bool) -> Any:
    """The ``tvm.relax.VMExecutable`` whose ``main(inputs, weights)`` runs the program.

    With ``polls`` it polls for signals, and the word to poll is one more input behind the others.
    """
    ib = ExecBuilder()
    with ib.function("main", num_inputs=2, param_names=["inputs", "weights"]):
        a = _Assembler(ib, program, polls)
        if program.slots:
            a.call("vm.builtin.alloc_shape_heap", [ib.vm_state(), ib.imm(program.slots)], a.heap)
        a.call("vm.builtin.null_value", [], a.null)
        if polls:
            word = [ib.r(_INPUTS), ib.imm(program.inputs)]
            a.call("vm.builtin.tuple_getitem", word, a.signal)
        a.block(program.body)
        a.emit()
        ib.emit_ret(ib.r(a.reg(program.result)))
    return ib.get()
