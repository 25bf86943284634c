"""Straight-line programs as native code: one function calls all kernels.

A run works on a frame (:mod:`.frame_code`) that the runtime allocates: addresses of inputs and
outputs, the dims of both, and behind them the arguments of all kernel calls.

The artifact holds a template of the frame. It is prepared once for inputs of the same shapes:

1. The runtime fills in the inputs' dims. From them ``graphkiln_plan`` computes the outputs' dims,
   other dims, the offset of each scratch buffer, and the size of scratch memory. Where the dims
   break a condition it sets the status to :data:`~graphkiln.contract.BAILED_OUT`.
2. The runtime applies the fixups.

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

from ..contract import BAILED_OUT, FRAME, PLAN, RUN, SCRATCH_BYTES, STATUS, Frame
from ..ir.graph import Graph
from ..ir.storage import storage_name
from ..ir.types import TensorType, Type
from ..targets.base import Target
from ..targets.tir.builder import Builder
from ..targets.tir.cpu_loops import CpuLoops
from ..targets.tir.extents import index
from .build import object_of
from .frame_code import FrameWords, FrameWriter, StepWriter
from .lower import Lowered
from .program import Slot, instruction_count
from .straight_line import StraightLine, straight_line

FUNCTIONS = (PLAN, RUN)

MOST_INSTRUCTIONS = 4_000
"""Longer programs go to the virtual machine: they run so long that its overhead does not show."""

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
    found = straight_line(lowered.program, lowered.dim_kernels, lowered.weights, inputs)
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


class _Code(FrameWords):
    """The frame and the functions of a straight-line program."""

    def __init__(self, steps: StraightLine, frame: Frame) -> None:
        super().__init__(frame, steps.pieces)
        self.steps = steps
        self.add_steps(steps.steps)
        self.stop = self.add([0])

    def function(self, name: str, body: Callable[[FrameWriter], None]) -> Any:
        b = Builder(CpuLoops(1))
        body(FrameWriter(b, b.argument("frame", (len(self.words),), "int64"), self.frame))
        return b.finish(name)

    def plan(self, w: FrameWriter) -> None:
        """The body of ``graphkiln_plan``."""
        w.learn_dims(self.steps.dims)
        w.set(STATUS, _handed_over(w, self.steps.verdicts))
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

    def run(self, w: FrameWriter) -> None:
        """The body of ``graphkiln_run``."""
        for t, at in self.tensors.items():
            if t.memory.kind == "input":
                w.set(at, w.get(self.frame.input(t.memory.number)))
            elif t.memory.kind == "output":
                w.set(at, w.get(self.frame.output(t.memory.number)))
            elif t.memory.kind == "signal":
                w.set(at, w.get(self.stop))
        signal = w.b.memory_at(w.get(self.stop), (1,), "int64")
        status = w.b.scalar("int32", 0)

        def bail_out() -> None:
            w.set(STATUS, index(BAILED_OUT))
            w.b.leave()

        StepWriter(self, w, w.get(FRAME), status, signal, bail_out).write(self.steps.steps)
        w.set(STATUS, index(status.get()))


def _handed_over(w: FrameWriter, verdicts: Sequence[Slot]) -> Expr:
    """The status before a run: bailed out where one of these slots is not 0."""
    status: Expr = index(0)
    for verdict in verdicts:
        wrong = tirx.NE(w.slots[verdict.index], index(0))
        status = w.b.let(tirx.Select(wrong, index(BAILED_OUT), status))
    return status


__all__ = ["FUNCTIONS", "Native", "native_object", "native_of"]
