"""Loops for GPUs: one thread for each index, in blocks along a one-dimensional grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from .builder import Builder, Expr, LoopStrategy
from .extents import as_int, index, product, static_product, unflatten

THREADS = 256
"""Threads of a block."""


class GpuLoops(LoopStrategy):
    """Each top-level nest becomes one launch of blocks of ``THREADS`` threads."""

    lane_kind = "serial"
    local_scope = "local"

    def nest(
        self, b: Builder, shape: tuple[Any, ...], body: Callable[[tuple[Expr, ...]], None],
        cost: int, sequential_last: bool,
    ) -> None:  # fmt: skip
        if static_product(shape) == 0:
            return
        if b.in_nest:  # already on the device: this thread does it all
            with b.grid(*shape) as at:
                body(at)
            return
        total = product(shape)
        known = as_int(total)
        blocks = -(-known // THREADS) if known is not None else None
        extent = index(blocks) if blocks is not None else _ceil_div(total)
        with (
            b.thread("blockIdx.x", extent) as block,
            b.thread("threadIdx.x", index(THREADS)) as thread,
        ):
            flat = b.let(block * THREADS + thread, "flat")
            if known is not None and known % THREADS == 0:
                body(tuple(unflatten(flat, shape)))
                return
            with b.when(flat < index(total)):
                body(tuple(unflatten(flat, shape)))


def _ceil_div(total: Expr) -> Expr:
    return tirx.floordiv(total + index(THREADS - 1), index(THREADS))
