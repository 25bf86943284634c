"""A process that builds kernels and times them: JSON lines in, JSON lines out.

``{"text", "target"}`` builds a kernel, runs it once and keeps it. ``{"seconds"}`` runs all kept
kernels in turns for about so long, answers with the least time of each in seconds, and drops them.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..contract import ALIGNMENT
from ..ir.graph import Graph
from ..ir.parser import parse_graph
from ..targets import parse_target
from .build import jit_kernel
from .child import die_with_parent

_SAMPLE_SECONDS = 2e-4
_ROUNDS = (3, 200)
_WEIGHTS = 1
"""The input of a kernel that holds weights."""
_FAR = 64 << 20
"""Bytes of weights that a kernel's runs take in turn, more than caches hold: in a run of a model,
too, a kernel finds its weights in memory."""
_MOST_RUNS = 256

Kernel = Callable[[], None]


class Arguments:
    """The arrays that kernels are run on. All kernels share them, as weights may be large.

    They hold ones: pages that were never written would all be the same physical page of zeros, and
    stay in the cache.
    """

    def __init__(self) -> None:
        self._pools: dict[tuple[int, str], np.ndarray] = {}

    def of(self, region: Graph) -> list[list[np.ndarray]]:
        """Arrays for the inputs and outputs of a region, all of known extents.

        Returns a list of arrays for each of several runs, which differ in the weights only.
        """
        values = [*region.inputs, *region.outputs]
        shapes = [([int(d) for d in v.shape], str(v.dtype)) for v in values]
        arrays = [self._pool(i, *s)[: int(np.prod(s[0]))].reshape(s[0]) for i, s in
                  enumerate(shapes)]  # fmt: skip
        shape, kind = shapes[_WEIGHTS]
        pool, size = self._pool(_WEIGHTS, shape, kind), int(np.prod(shape))
        step = -(-size // ALIGNMENT) * ALIGNMENT
        starts = range(0, pool.size - size + 1, step)[:_MOST_RUNS]
        parts = [pool[start : start + size].reshape(shape) for start in starts]
        return [[*arrays[:_WEIGHTS], part, *arrays[_WEIGHTS + 1 :]] for part in parts]

    def _pool(self, i: int, shape: Sequence[int], kind: str) -> np.ndarray:
        """An array of at least as many elements as ``shape`` has, aligned to cache lines."""
        item = np.dtype(kind).itemsize
        size = max(int(np.prod(shape)), _FAR // item if i == _WEIGHTS else 0)
        pool = self._pools.get((i, kind))
        if pool is None or pool.size < size:
            raw = np.ones(size + ALIGNMENT // item, kind)
            skip = -raw.ctypes.data % ALIGNMENT // item
            pool = self._pools[i, kind] = raw[skip : skip + size]
        return pool


def time_kernels(kernels: Sequence[Kernel], seconds: float) -> list[float]:
    """The least processor time of one run of each kernel, in seconds.

    The kernels take turns, so that whatever disturbs the machine disturbs all of them.
    """
    counts = [max(1, round(_SAMPLE_SECONDS / max(_sample(k, 1), 1e-9))) for k in kernels]
    best = [float("inf")] * len(kernels)
    end = time.perf_counter() + seconds
    least, most = _ROUNDS
    for done in range(most):
        if done >= least and time.perf_counter() >= end:
            break
        for i, (kernel, count) in enumerate(zip(kernels, counts, strict=True)):
            best[i] = min(best[i], _sample(kernel, count))
    return best


def _sample(kernel: Kernel, count: int) -> float:
    start = time.thread_time()
    for _ in range(count):
        kernel()
    return (time.thread_time() - start) / count


class Bench:
    """Answers requests; ``kernels`` are those built since times were last asked for."""

    def __init__(self) -> None:
        self.arguments = Arguments()
        self.kernels: list[Kernel] = []

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if "seconds" in request:
            kernels, self.kernels = self.kernels, []
            return {"seconds": time_kernels(kernels, float(request["seconds"]))}
        try:
            kernel = self._build(request["text"], request["target"])
            kernel()
        except Exception as e:
            return {"error": str(e)}
        self.kernels.append(kernel)
        return {}

    def _build(self, text: str, target: str) -> Kernel:
        import tvm_ffi

        region = parse_graph(text)
        function = jit_kernel(region, parse_target(target))
        runs = self.arguments.of(region)
        given = itertools.cycle([[tvm_ffi.from_dlpack(a) for a in run] for run in runs])
        return lambda: function(*next(given))


def main() -> None:
    """Serve requests from standard input until it ends."""
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    bench = Bench()
    for line in sys.stdin.buffer:
        out.write(json.dumps(bench.answer(json.loads(line))).encode() + b"\n")
        out.flush()
