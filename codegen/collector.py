"""Python's cyclic garbage collector, made to run seldom while much is built.

A compiler builds graphs and modules that live on: each full collection walks them all, TVM's
thousands of classes too, and finds next to nothing. By its usual thresholds that is a fifth of
what a cached compilation takes.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (100_000, 50, 100)
"""Objects made until the youngest are looked at, and runs of each generation until the next's."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """Within, the collector runs by ``THRESHOLDS``, unless the process has it off or rarer."""
    before = gc.get_threshold()
    rarer = not gc.isenabled() or before[0] == 0 or before[0] > THRESHOLDS[0]
    if not rarer:
        gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        # Left alone where somebody else has set them meanwhile.
        if not rarer and gc.get_threshold() == THRESHOLDS:
            gc.set_threshold(*before)
