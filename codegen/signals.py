"""Where compiled code looks whether a signal has come.

It looks at a word that `graphkiln.runtime.signals` keeps: between the kernels of native code, and
in the bytecode of programs that may take long, which get the word as one more input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import tvm
from tvm import tirx

from ..contract import POLL, POLLS_ALWAYS, POLLS_LONG
from ..targets.base import Target
from ..targets.tir.builder import BufferTensor, Builder, index
from ..targets.tir.cpu_loops import CpuLoops
from .build import object_of
from .program import Call, If, Instruction, Loop, Program

EVERY = 16
"""So many kernels take, in models where it matters, less than a second."""


def polling(program: Program) -> str | None:
    """When a run of the program's bytecode should be watched, as the manifest has it.

    ``always`` where loops decide how long it takes, ``long`` where it may take long, and None for
    bytecode that does not look.
    """
    if any(isinstance(i, Loop) for i in _all(program.body)):
        return POLLS_ALWAYS
    kernels = sum(isinstance(i, Call) for i in _all(program.body))
    return POLLS_LONG if kernels > EVERY else None


def _all(block: Sequence[Instruction]) -> Iterator[Instruction]:
    for i in block:
        yield i
        if isinstance(i, If):
            yield from _all((*i.then, *i.orelse))
        elif isinstance(i, Loop):
            yield from _all((*i.test, *i.body))


def poll_object(target: Target) -> bytes:
    """The object file of :data:`POLL`, a function of the word."""
    b = Builder(CpuLoops(1))
    handle_signals(b, b.argument("signal", (1,), "int64"))
    return object_of(tvm.IRModule({POLL: b.finish(POLL)}), target.host, asserts=True)


def handle_signals(b: Builder, signal: BufferTensor) -> None:
    """Where the word is not zero, run the handlers; fail where one does, with the error it left."""
    with b.when(signal[0] != index(0)):
        result: Any = b.let(tirx.call_extern("int32", "TVMFFIEnvCheckSignals"))
        kind, message = map(tvm.ir.expr.StringImm, ("EnvErrorAlreadySet", "interrupted"))
        b.emit(tirx.AssertStmt(result == 0, kind, [message]))


__all__ = ["EVERY", "POLL", "handle_signals", "poll_object", "polling"]
