"""Times each kernel call of a model while it runs.

The virtual machine calls a hook before and after each instruction, which records the time and does
nothing else. The overhead of the hook is the median time of instructions that do next to nothing,
of which every program has some; it is subtracted. The names and sizes of the calls are recorded in
a separate run beforehand, since reading a call's arguments takes longer than a small kernel.
"""

from __future__ import annotations

import ctypes
import math
import operator
import statistics
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ..contract import DIM_KERNELS, LOOPS, POLL, STEP
from . import threads as thread_pool
from .errors import ExecutionError
from .instance import Instance
from .values import tvm_ffi

_TRIFLES = frozenset({"vm.builtin.null_value", "vm.builtin.tuple_getitem"})
_BOOKKEEPING = ("vm.", DIM_KERNELS, LOOPS, POLL, STEP)
# The machine passes arguments as well; C's calling convention lets a function ignore them.
_Hook = ctypes.CFUNCTYPE(ctypes.c_int)


class KernelCall(NamedTuple):
    """A kernel or host function as a run calls it; ``sizes`` are its run-time dims."""

    name: str
    sizes: tuple[int, ...]


class TimedCall(NamedTuple):
    """A call's start in a run, and how long it took, in seconds."""

    call: KernelCall
    start: float
    seconds: float


class Profiler:
    """Runs a model on the same feeds again and again, and times each kernel call.

    Made by `Session.profiler`. Raises InputError for feeds that do not fit.
    """

    def __init__(
        self, machine: Any, instance: Instance, feeds: Mapping[str, Any], threads: int
    ) -> None:
        self._machine = machine
        self._instance = instance
        instance.spell_out()
        self._feeds = feeds
        self._threads = threads
        self._marks: list[int] = []
        self._durations: list[np.ndarray] = []
        self._hook_costs: list[int] = []
        self._shortest: float = math.inf
        self._fastest = -1
        self._starts = np.empty(0, np.int64)
        self._sequence = self._learn()
        self._kernels = [
            i for i, call in enumerate(self._sequence) if not call.name.startswith(_BOOKKEEPING)
        ]
        self._trifles = [i for i, call in enumerate(self._sequence) if call.name in _TRIFLES]
        self._keep = self._install_clock()

    @property
    def calls(self) -> list[KernelCall]:
        """The kernel calls of a run, in order."""
        return [self._sequence[i] for i in self._kernels]

    @property
    def runs(self) -> int:
        """Runs so far."""
        return len(self._durations)

    @property
    def hook_seconds(self) -> float:
        """The hook's median overhead for a call; times have that of their own run subtracted."""
        return statistics.median(self._hook_costs) * 1e-9

    def run(self) -> None:
        """One more timed run. Raises ExecutionError where it makes other calls than the first."""
        self._marks.clear()
        self._execute()
        marks = np.array(self._marks, np.int64)
        if len(marks) != 2 * len(self._sequence):
            raise ExecutionError("the model does not make the same calls in every run")
        marks = marks.reshape(-1, 2)
        spans = marks[:, 1] - marks[:, 0]
        cost = int(np.median(spans[self._trifles]))
        self._hook_costs.append(cost)
        self._durations.append(np.maximum(spans[self._kernels] - cost, 0))
        whole = int(marks[-1, 1] - marks[0, 0])
        if whole < self._shortest:
            self._shortest, self._fastest = whole, self.runs - 1
            self._starts = marks[self._kernels, 0] - marks[0, 0]

    def seconds(self) -> np.ndarray:
        """float64[runs, calls]: how long each kernel call took."""
        return np.array(self._durations).reshape(-1, len(self._kernels)) * 1e-9

    def fastest(self) -> list[TimedCall]:
        """The kernel calls of the fastest run."""
        taken = self._durations[self._fastest] * 1e-9
        return list(map(TimedCall, self.calls, (self._starts * 1e-9).tolist(), taken.tolist()))

    def _execute(self) -> None:
        thread_pool.use(self._threads)
        self._instance.main(self._instance.bind(self._feeds), self._instance.weights)

    def _learn(self) -> list[KernelCall]:
        sequence: list[KernelCall] = []

        def note(_function: Any, name: str, before: bool, _result: Any, *arguments: Any) -> int:
            if before:
                sizes = tuple(int(a) for a in arguments if isinstance(a, int))
                sequence.append(KernelCall(name, sizes))
            return 0

        self._machine["set_instrument"](tvm_ffi.convert(note))
        self._execute()
        return sequence

    def _install_clock(self) -> Any:
        """Set a hook that records times; returns what must live as long as it does."""
        # All of the hook runs in C, without a Python frame: a signal's handler cannot raise in it,
        # which the machine could not take, and no argument is converted to a Python object.
        # `truth` turns the None that `append` returns into 0, which means success.
        times = iter(time.perf_counter_ns, -1)
        clock = map(operator.truth, map(self._marks.append, times))
        compiled = _Hook(clock.__next__)
        address = ctypes.cast(compiled, ctypes.c_void_p).value
        hook = tvm_ffi.Function.__from_extern_c__(address, keep_alive_object=compiled)
        self._machine["set_instrument"](hook)
        return hook
