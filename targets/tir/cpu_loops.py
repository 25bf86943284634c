"""Loops for CPUs: outer dims run in parallel, and the last one is left to LLVM's vectoriser."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from tvm import tirx

from .builder import Builder, Expr, LoopStrategy
from .extents import as_int, index, product, static_product, unflatten

PARALLEL_THRESHOLD = 1 << 16
"""Scalar operations of a nest below which a second thread costs more than it gains."""

_FEW = PARALLEL_THRESHOLD // 16
"""The same where open sizes are 1 and a body has loops of its own: above this it is not worth
compiling such a body twice, for one thread and for several."""

_FEWEST_TASKS = 32
_TASKS_OF_THREAD = 8
"""Tasks for each thread, so that threads share the work evenly even if tasks differ in length; also
the least number of tasks in all."""

CHUNK = 4_096
"""Elements of one task where a long last dim is cut into tasks."""


class CpuLoops(LoopStrategy):
    """Loops that keep ``threads`` threads busy; LLVM vectorises the innermost one.

    A kernel is right for any number of threads at run time. With fewer threads than expected each
    takes more tasks; with more, some may have none.
    """

    lane_kind = "vectorized"
    # TVM puts small "global" arrays on the stack, but calls the heap for "local" ones.
    local_scope = "global"
    task_memory = True
    has_prologue = True

    def __init__(self, threads: int, vector_bytes: int = 64) -> None:
        self.threads = threads
        self.vector_bytes = vector_bytes
        self.tasks = max(_FEWEST_TASKS, _TASKS_OF_THREAD * threads)

    def nearest(self, value: Expr) -> Expr:
        return tirx.call_llvm_pure_intrin("int32", "llvm.lrint", value)

    def nest(
        self, b: Builder, shape: tuple[Any, ...], body: Callable[[tuple[Expr, ...]], None],
        cost: int, sequential_last: bool,
    ) -> None:  # fmt: skip
        if any(as_int(extent) == 0 for extent in shape):
            return
        total = static_product(shape)
        small = total is not None and total * cost < PARALLEL_THRESHOLD
        worth_two = _FEW if sequential_last else PARALLEL_THRESHOLD
        if small or not shape or b.in_nest:
            _serial(b, shape, body)
        elif total is None and _known(shape) * cost < worth_two:
            few = b.let(index(product(shape)) * cost < PARALLEL_THRESHOLD)
            with b.when(few):
                _serial(b, shape, body)
            with b.when(tirx.Not(few)):
                self._parallel(b, shape, body, sequential_last)
        else:
            self._parallel(b, shape, body, sequential_last)

    def _parallel(
        self, b: Builder, shape: tuple[Any, ...], body: Callable[[tuple[Expr, ...]], None],
        sequential_last: bool,
    ) -> None:  # fmt: skip
        outer = _split_point(shape, self.busy, keep_last=not sequential_last)
        if outer:
            _parallel_outer(b, shape, outer, body)
        elif len(shape) == 1 and not sequential_last:
            _chunked(b, shape[0], lambda i: body((i,)))
        else:
            _flat(b, shape, body)


def _known(shape: tuple[Any, ...]) -> int:
    """The least number of iterations, if no dim of unknown extent is empty."""
    return prod(as_int(extent) or 1 for extent in shape)


def _split_point(shape: tuple[Any, ...], wanted: int, keep_last: bool) -> int:
    """How many leading dims become the parallel loop: enough for ``wanted`` tasks, or else 0.

    A dim of unknown extent is assumed to be enough, except for the first of several, which usually
    is a batch of one.
    """
    limit = len(shape) - 1 if keep_last else len(shape)
    total = 1
    for n in range(limit):
        extent = as_int(shape[n])
        if extent is None:
            extent = 1 if n == 0 and limit > 1 else wanted
        total *= extent
        if total >= wanted:
            return n + 1
    return 0 if keep_last else limit


def _serial(b: Builder, shape: tuple[Any, ...], body: Callable[[tuple[Expr, ...]], None]) -> None:
    with b.grid(*shape) as at:
        body(at)


def _parallel_outer(
    b: Builder, shape: tuple[Any, ...], outer: int, body: Callable[[tuple[Expr, ...]], None]
) -> None:
    with b.loop(product(shape[:outer]), "parallel", "p") as p:
        lead = _indices(b, p, shape[:outer])
        with b.grid(*shape[outer:]) as rest:
            body((*lead, *rest))


def _indices(b: Builder, flat: Expr, extents: tuple[Any, ...]) -> tuple[Expr, ...]:
    """The indices into ``extents`` of the task with the number ``flat``."""
    hide = static_product(extents) is None
    return tuple(b.opaque(v) if hide else b.let(v, "o") for v in unflatten(flat, extents))


def _chunked(b: Builder, extent: Any, body: Callable[[Expr], None]) -> None:
    """One dim as parallel tasks of :data:`CHUNK` elements each."""
    n = index(extent)
    known = as_int(extent)
    tasks = -(-known // CHUNK) if known else tirx.floordiv(n + index(CHUNK - 1), index(CHUNK))
    with b.loop(tasks, "parallel", "p") as p:
        start = b.let(p * CHUNK, "start")
        size = b.let(tirx.min(index(CHUNK), n - start), "size")
        with b.loop(size) as i:
            body(start + i)


def _flat(b: Builder, shape: tuple[Any, ...], body: Callable[[tuple[Expr, ...]], None]) -> None:
    """Tasks are chunks of the last dim, where the dims before it are too few tasks."""
    last = index(shape[-1])
    chunks = tirx.floordiv(last + index(CHUNK - 1), index(CHUNK))
    known = as_int(shape[-1])
    count: Any = -(-known // CHUNK) if known is not None else chunks
    rows = shape[:-1]
    with b.loop(product((*rows, count)), "parallel", "p") as p:
        *at, chunk = _indices(b, p, (*rows, count))
        start = b.let(chunk * CHUNK, "start")
        size = b.let(tirx.min(index(CHUNK), last - start), "size")
        with b.loop(size) as i:
            body((*at, start + i))
