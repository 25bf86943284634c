"""Polling for signals in compiled code, so that Ctrl-C ends a long run.

The code polls a word of memory that `graphkiln.runtime.signals` sets. Native code does so between
kernels; bytecode of programs that may take long gets the word as one more input.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import tvm
from tvm import tirx

from ..contract import POLL, POLLS_ALWAYS, POLLS_LONG, STEP
from ..targets.base import Target
from ..targets.tir.builder import BufferTensor, Builder
from ..targets.tir.cpu_loops import CpuLoops
from ..targets.tir.extents import index
from .build import object_of
from .program import Call, CallLoop, If, Instruction, Loop, Program

EVERY = 16
"""Kernel calls between two polls of bytecode: less than a second in models of long kernels."""


def polling(program: Program) -> str | None:
    """Whether the program's bytecode polls, as the manifest tells the runtime.

    ``always`` where it has loops, whose time is unknown, ``long`` where it has loops whose time is
    that of the last run with the same shapes or more than :data:`EVERY` kernel calls, and None
    where it does not poll.
    """
    instructions = list(_all(program.body))
    if any(isinstance(i, Loop) or isinstance(i, CallLoop) and not i.steady for i in instructions):
        return POLLS_ALWAYS
    loops = any(isinstance(i, CallLoop) for i in instructions)
    kernels = sum(isinstance(i, Call) for i in instructions)
    return POLLS_LONG if loops or kernels > EVERY else None


def _all(block: Sequence[Instruction]) -> Iterator[Instruction]:
    """All instructions, those of nested blocks included."""
    for i in block:
        yield i
        if isinstance(i, If):
            yield from _all((*i.then, *i.orelse))
        elif isinstance(i, Loop):
            yield from _all((*i.test, *i.body))
        elif isinstance(i, CallLoop) and not i.steady:
            yield from _all(i.otherwise)


def poll_object(target: Target) -> bytes:
    """The object file of :data:`POLL`, the function that bytecode calls with the word, and of
    :data:`STEP`.
    """
    b = Builder(CpuLoops(1))
    handle_signals(b, b.argument("signal", (1,), "int64"))
    functions = {POLL: b.finish(POLL), STEP: _step()}
    return object_of(tvm.IRModule(functions), target.host, asserts=True)


def _step() -> Any:
    """The function of :class:`.StepLoop`, which polls as well."""
    b = Builder(CpuLoops(1))
    signal = b.argument("signal", (1,), "int64")
    iteration, limit = (b.argument(n, (), "int64") for n in ("iteration", "limit"))
    condition, test = (b.argument(n, (), "bool") for n in ("condition", "test"))
    following = b.let(iteration.at() + index(1))
    iteration.store((), following)
    test.store((), tirx.all(following < limit.at(), condition.at()))
    handle_signals(b, signal)
    return b.finish(STEP)


def handle_signals(b: Builder, signal: BufferTensor) -> None:
    """Emit a poll: unless the word is 0, Python handles signals, and an error ends the run."""
    with b.when(signal[0] != index(0)):
        result: Any = b.let(tirx.call_extern("int32", "TVMFFIEnvCheckSignals"))
        require(b, result == 0)


def require(b: Builder, fine: Any) -> None:
    """Emit an end of the function unless ``fine``: with the error that a handler has raised."""
    kind, message = map(tvm.ir.expr.StringImm, ("EnvErrorAlreadySet", "interrupted"))
    b.emit(tirx.AssertStmt(fine, kind, [message]))


__all__ = ["EVERY", "POLL", "STEP", "handle_signals", "poll_object", "polling", "require"]
