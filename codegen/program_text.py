"""Programs and kernels as text, for dumps: what becomes of a graph after the last pass.

Each line is an instruction. ``r3`` is a register and ``s1`` a slot, which holds a run-time dim. The
line that computes a slot says which dim it is; a comment behind a kernel call names the ONNX nodes
that the call computes. Memory other than the host's, and another device, are named where they are
used. docs/architecture.md shows an example.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..contract import HOST
from ..targets.base import Target, targets_of
from .build import kernel_function
from .dim_slots import DimKernel
from .kernels import KernelSpec
from .lower import Lowered
from .program import (
    AllocStorage,
    BindShape,
    BindSizes,
    Call,
    CallHost,
    CallLoop,
    CheckSizes,
    ComputeDims,
    Copy,
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
    ReadDim,
    Reg,
    ShapeConst,
    SignalWord,
    Slot,
    StepLoop,
    Transfer,
    View,
)


def program_text(lowered: Lowered) -> str:
    """The text of a program, a line for each instruction."""
    return "\n".join(_Printer(lowered).lines()) + "\n"


def kernel_text(spec: KernelSpec, name: str, target: Target) -> str:
    """A kernel's region, and the TensorIR that the target makes of it.

    Raises :class:`.LoweringError` where there is no rule for it.
    """
    return f"{spec.text}\n{kernel_function(spec, name, target).script(show_meta=True)}\n"


def dump_program(
    folder: str | os.PathLike[str], number: int, lowered: Lowered, target: Target
) -> None:
    """Write ``NN_program.txt``, and ``kernels/NAME.txt`` for each kernel, below ``folder``.

    Raises ``OSError`` where that cannot be.
    """
    kernels = Path(folder) / "kernels"
    kernels.mkdir(parents=True, exist_ok=True)
    targets = targets_of(target)
    files = {Path(folder) / f"{number:02d}_program.txt": program_text(lowered)}
    for name, spec in lowered.kernels.items():
        files[kernels / f"{name}.txt"] = kernel_text(spec, name, targets[spec.device])
    for path, text in files.items():
        path.write_text(text, encoding="utf-8", newline="\n")


class _Printer:
    def __init__(self, lowered: Lowered) -> None:
        self._lowered = lowered
        self._program = lowered.program
        self._dims = {k.name: k for k in lowered.dim_kernels}
        self._seen: dict[str, int] = {}

    def lines(self) -> Iterator[str]:
        p = self._program
        yield f"program({p.inputs} inputs, {p.slots} sizes, {p.arena_bytes} bytes of arena) {{"
        yield from self._block(p.body, "  ")
        yield f"  return {_reg(p.result)}"
        yield "}"

    def _block(self, block: Sequence[Instruction], indent: str) -> Iterator[str]:
        for i in block:
            if isinstance(i, If):
                yield f"{indent}if {_reg(i.condition)} {{"
                yield from self._block(i.then, f"{indent}  ")
                yield f"{indent}}} else {{"
                yield from self._block(i.orelse, f"{indent}  ")
                yield f"{indent}}}"
            elif isinstance(i, Loop):
                yield f"{indent}loop {{"
                yield from self._block(i.test, f"{indent}  ")
                yield f"{indent}  while {_reg(i.condition)}"
                yield from self._block(i.body, f"{indent}  ")
                yield f"{indent}}}"
            elif isinstance(i, CallLoop):
                yield f"{indent}{i.loop}({_operands(i.arguments)})"
                yield f"{indent}unless {_reg(i.done)} {{"
                yield from self._block(i.otherwise, f"{indent}  ")
                yield f"{indent}}}"
            else:
                yield indent + self._line(i)

    def _line(self, i: Instruction) -> str:
        if isinstance(i, Call):
            return f"{self._on(i.kernel)}({_operands(i.arguments)}){self._origins(i.kernel)}"
        if isinstance(i, CallHost):
            arguments = _operands(i.arguments)
            return f"{_reg(i.dst)} = host {i.op}({arguments}) {i.attributes}"
        if isinstance(i, ComputeDims):
            return f"{i.kernel}: {_sizes(self._dims[i.kernel])}"
        if isinstance(i, CheckSizes):
            told = "; ".join(c.message for c in i.checks)
            return f"check {_size(i.verdict)}: {told}"
        return _simple(i, self._lowered)

    def _on(self, kernel: str) -> str:
        """A kernel's name, behind the device that it runs on where that is not the host."""
        spec = self._lowered.kernels.get(kernel)
        return kernel if spec is None or spec.device == HOST else f"{spec.device} {kernel}"

    def _origins(self, kernel: str) -> str:
        """A comment with the ONNX nodes behind the next call of a kernel."""
        turn = self._seen[kernel] = self._seen.get(kernel, -1) + 1
        calls = self._lowered.calls.get(kernel, [])
        origins = calls[turn].origins if turn < len(calls) else ()
        return f"  # {', '.join(origins)}" if origins else ""


def _simple(i: Instruction, lowered: Lowered) -> str:
    """The text of an instruction that needs nothing but itself and the weights."""
    match i:
        case LoadInput(dst, index):
            return f"{_reg(dst)} = input {index}"
        case LoadWeight(dst, index, space):
            name, array = lowered.weights[index]
            t = f"{array.dtype}{list(array.shape)}"
            return f"{_reg(dst)} = weight {index} {t}{_in(space)}  # {name}"
        case AllocStorage(dst, size, space):
            return f"{_reg(dst)} = storage {_size(size)}{_in(space)}"
        case Transfer(source, target, space):
            return f"copy {_reg(source)} to {_reg(target)}{_in(space)}"
        case MakeTensor(dst, storage, offset, shape, dtype):
            return f"{_reg(dst)} = tensor {_reg(storage)}+{offset} {dtype}{_shape(shape)}"
        case View(dst, source, shape):
            return f"{_reg(dst)} = view {_reg(source)} {_shape(shape)}"
        case GetItem(dst, source, index):
            return f"{_reg(dst)} = {_reg(source)}[{index}]"
        case MakeTuple(dst, items):
            return f"{_reg(dst)} = ({_operands(items)})"
        case BindShape(source, dims, what):
            return f"bind {_reg(source)} {_shape(dims)}  # {what}"
        case BindSizes(source, slots):
            return f"bind {_shape(slots)} = {_reg(source)}"
        case ReadDim(dst, slot):
            return f"{_reg(dst)} = {_size(slot)}"
        case Copy(dst, source):
            return f"{_reg(dst)} = {_reg(source)}"
        case StepLoop(iteration, limit, condition, test):
            told = f"{_reg(iteration)} < {_reg(limit)} and {_reg(condition)}"
            return f"{_reg(iteration)} += 1; {_reg(test)} = {told}"
        case Kill(reg):
            return f"free {_reg(reg)}"
    raise TypeError(f"no text for {i}")


def _sizes(kernel: DimKernel) -> str:
    """What a dim kernel computes, such as ``s2 = 2*N where N=s0``."""
    known = ", ".join(f"{symbol}=s{slot}" for symbol, slot in kernel.symbols)
    made = ", ".join(f"s{slot} = {dim}" for slot, dim in kernel.targets)
    decided = "" if kernel.verdict is None else f"s{kernel.verdict.slot} = what does not hold"
    return f"{', '.join(filter(None, (made, decided)))} where {known}"


def _reg(reg: Reg) -> str:
    return f"r{reg.number}"


def _in(space: str) -> str:
    """The memory space, where it is not the host's."""
    return "" if space == HOST else f" in {space}"


def _size(size: object) -> str:
    return "_" if size is None else f"s{size.index}" if isinstance(size, Slot) else str(size)


def _shape(shape: Sequence[object]) -> str:
    return f"[{','.join(map(_size, shape))}]"


def _operands(operands: Sequence[object]) -> str:
    return ", ".join(map(_operand, operands))


def _operand(operand: object) -> str:
    if isinstance(operand, Reg):
        return _reg(operand)
    if isinstance(operand, Imm):
        return str(operand.value)
    if isinstance(operand, SignalWord):
        return "signal"
    return str(list(operand.dims)) if isinstance(operand, ShapeConst) else "_"


__all__ = ["dump_program", "kernel_text", "program_text"]
