"""How compile time grows with the model: import, passes, printing, lowering.

    python benchmarks/growth.py [5000 10000 20000 40000]

Fits time = c * nodes ** exponent for each stage; linear cost shows as an exponent near 1. Prints
the least of three runs of each size. Each stage begins with a collection of garbage, since
otherwise it may pay for one that an earlier stage made due.
"""

from __future__ import annotations

import gc
import math
import sys
import time
from collections.abc import Callable
from typing import Any

from synthetic import synthetic_model

from graphkiln.codegen.lower import lower_graph
from graphkiln.driver import CompileOptions, import_model, optimize_graph
from graphkiln.ir.text import print_graph
from graphkiln.targets import parse_target


def timed(step: Callable[[], Any]) -> tuple[float, Any]:
    gc.collect()
    start = time.process_time()
    result = step()
    return time.process_time() - start, result


def stages(nodes: int) -> dict[str, float]:
    """Processor seconds of each stage for a model of that size."""
    data = synthetic_model(nodes).SerializeToString()
    out: dict[str, float] = {}
    out["import"], imported = timed(lambda: import_model(data))
    out["passes"], graph = timed(lambda: optimize_graph(imported.graph, CompileOptions()))
    out["print"], _ = timed(lambda: print_graph(graph))
    target = parse_target("cpu")
    out["lower"], _ = timed(lambda: lower_graph(graph, target, "growth"))
    return out


def least_of(runs: int, nodes: int) -> dict[str, float]:
    """:func:`stages`, the least of several runs for each."""
    found = [stages(nodes) for _ in range(runs)]
    return {stage: min(f[stage] for f in found) for stage in found[0]}


def exponent(sizes: list[int], seconds: list[float]) -> float:
    """The slope of a least-squares line through the logarithms."""
    xs, ys = [math.log(s) for s in sizes], [math.log(max(s, 1e-9)) for s in seconds]
    mx, my = sum(xs) / len(xs), sum(ys) / len(ys)
    top = sum((x - mx) * (y - my) for x, y in zip(xs, ys, strict=True))
    return top / sum((x - mx) ** 2 for x in xs)


def main() -> None:
    sizes = [int(a) for a in sys.argv[1:]] or [5_000, 10_000, 20_000, 40_000]
    stages(1_000)  # imports and caches
    rows = [least_of(3, n) for n in sizes]
    print("stage   " + "".join(f"{n:>10d}" for n in sizes) + "  exponent")
    for stage in rows[0]:
        seconds = [r[stage] for r in rows]
        cells = "".join(f"{s:9.2f}s" for s in seconds)
        print(f"{stage:8s}{cells}  {exponent(sizes, seconds):8.2f}")


if __name__ == "__main__":
    main()
