"""Makes Python's cyclic garbage collector run rarely during a compilation.

A compiler builds graphs and modules that live until its end. Each full collection walks all of
them, and TVM's thousands of classes, and frees next to nothing. With Python's default thresholds
that takes a fifth of the time of a compilation whose kernels are cached.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

THRESHOLDS = (100_000, 50, 100)
"""What ``gc.set_threshold`` takes: allocations until a collection of the youngest generation, and
collections of each generation until one of the next."""


@contextmanager
def rare_collections() -> Iterator[None]:
    """A context with ``THRESHOLDS``, unless the process has the collector off or rarer."""
    before = gc.get_threshold()
    rarer = not gc.isenabled() or before[0] == 0 or before[0] > THRESHOLDS[0]
    if not rarer:
        gc.set_threshold(*THRESHOLDS)
    try:
        yield
    finally:
        # Thresholds that other code has set meanwhile stay.
        if not rarer and gc.get_threshold() == THRESHOLDS:
            gc.set_threshold(*before)
