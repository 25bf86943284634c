"""How the cost of something grows with its size."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable


def growth(make: Callable[[int], Callable[[], object]], small: int = 500) -> float:
    """CPU time of ``make(4 * small)()`` over that of ``make(small)()``: 4 where linear.

    The least of several runs of each, taken in turn, with the garbage collector off.
    """
    actions = [make(small), make(4 * small)]
    best = [float("inf"), float("inf")]
    gc.collect()
    gc.disable()
    try:
        for _ in range(3):
            for i, action in enumerate(actions):
                start = time.process_time()
                action()
                best[i] = min(best[i], time.process_time() - start)
    finally:
        gc.enable()
    return best[1] / best[0]
