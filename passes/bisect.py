"""Finds the first pass that changes the numbers although it is not lossy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..ir.graph import Graph
from ..ir.interpreter import evaluate
from .base import Pass
from .manager import PassManager
from .pipeline import format_pass


@dataclass(frozen=True)
class Culprit:
    """The first pass after which the results differ; ``before`` is the graph that it was given."""

    index: int
    text: str
    output: str
    difference: float
    before: Graph
    after: Graph


def bisect(
    graph: Graph,
    passes: Sequence[Pass],
    feeds: Mapping[str, Any],
    *,
    rtol: float = 1e-3,
    atol: float = 1e-5,
    manager: PassManager | None = None,
) -> Culprit | None:
    """Run ``passes`` on a copy of ``graph`` and compare what it computes for ``feeds``.

    An output differs where an element is off by more than ``rtol`` of the reference or ``atol``
    of the largest reference element. Returns None where no pass changes the numbers. Passes that
    report no change are not evaluated after. A lossy pass is meant to change them: what the graph
    computes after it is the reference for the passes that follow. ``manager`` (for its options,
    such as ``hardware``) is used in place of a plain one. Raises :class:`PassError` where a pass
    fails.
    """
    runner = manager or PassManager([])
    expected = evaluate(graph, feeds)
    current = graph.copy()
    for index, p in enumerate(passes, 1):
        before = current.copy()
        result = runner.run_pass(p, current)
        if not result.changes:
            continue
        actual = evaluate(current, feeds)
        if p.is_lossy():
            expected = actual
            continue
        found = _difference(expected, actual, rtol, atol)
        if found is not None:
            output, difference = found
            name = graph.output_names[output]
            return Culprit(index, format_pass(p), name, difference, before, current)
    return None


def _difference(
    expected: Sequence[Any], actual: Sequence[Any], rtol: float, atol: float
) -> tuple[int, float] | None:
    """The first output that differs, and by how much at most (infinite: in kind)."""
    for i, (a, b) in enumerate(zip(expected, actual, strict=True)):
        worst = _worst(a, b, rtol, atol)
        if worst > 0:
            return i, worst
    return None


def _worst(a: Any, b: Any, rtol: float, atol: float) -> float:
    """The largest difference beyond tolerance; 0 where there is none."""
    if isinstance(a, list):
        if not isinstance(b, list) or len(a) != len(b):
            return np.inf
        return max((_worst(x, y, rtol, atol) for x, y in zip(a, b, strict=True)), default=0.0)
    if a is None or b is None:
        return 0.0 if a is b else np.inf
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.inf
    if a.dtype.kind in "OSUb":
        return 0.0 if np.array_equal(a, b) else np.inf
    x, y = a.astype(np.complex128), b.astype(np.complex128)
    finite = np.isfinite(x)
    if not np.array_equal(finite, np.isfinite(y)):
        return np.inf
    scale = float(np.abs(x[finite]).max(initial=0.0))
    off = np.abs(x - y)[finite]
    over = off > rtol * np.abs(x[finite]) + atol * scale
    return float(off[over].max(initial=0.0))


__all__ = ["Culprit", "bisect"]
