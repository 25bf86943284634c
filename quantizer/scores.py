"""How good a model is on sample data: a user's metric, or agreement with the float model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..errors import UsageError

if TYPE_CHECKING:
    from ..driver import Data
    from ..runtime import Session

Metric: TypeAlias = "Callable[[Mapping[str, Any], Mapping[str, Any]], float]"
"""The score of a sample, more is better, from the model's results and the sample, each by name.

A sample may hold arrays that are no inputs, such as labels. The score of a model is the mean.
"""


class ScoreError(UsageError):
    """A metric fails, or says something that is no number."""


class Scores:
    """Scores models on samples, which are gone through once for each.

    Without a ``metric``, a sample's score is the cosine of the results and those of ``original``,
    the float model: the mean over its float results, or the share of equal elements of others.
    """

    def __init__(self, data: Data, original: Session, metric: Metric | None = None) -> None:
        self._data, self._original, self._metric = data, original, metric
        self.inputs = frozenset(i.name for i in original.get_inputs())

    def of(self, session: Session) -> float:
        """The mean score of a model. Raises :class:`ScoreError` for a metric that gives no number,
        or where there are no samples.
        """
        names = [o.name for o in session.get_outputs()]
        total, count = 0.0, 0
        for sample in self._data:
            feeds = {name: array for name, array in sample.items() if name in self.inputs}
            results = session.run(None, feeds)
            if self._metric is None:
                score = agreement(results, self._original.run(None, feeds))
            else:
                score = self._scored(dict(zip(names, results, strict=True)), sample, count)
            total += score
            count += 1
        if not count:
            raise ScoreError("there are no samples to score the model on")
        return total / count

    def _scored(self, results: Mapping[str, Any], sample: Mapping[str, Any], number: int) -> float:
        assert self._metric is not None
        try:
            found = self._metric(results, sample)
        except Exception as e:
            told = f"{type(e).__name__}: {e}"
            raise ScoreError(f"the metric fails for sample {number}: {told}") from e
        try:
            score = float(found)
        except (TypeError, ValueError):
            score = float("nan")
        if not np.isfinite(score):
            raise ScoreError(f"the metric gives {found!r} for sample {number}, which is no score")
        return score


def agreement(found: list[Any], wanted: list[Any]) -> float:
    """How much results are like others: 1 where they are the same."""
    parts = [_alike(a, b) for a, b in zip(found, wanted, strict=True) if isinstance(b, np.ndarray)]
    return float(np.mean(parts)) if parts else 1.0


def _alike(a: Any, b: np.ndarray) -> float:
    if a.shape != b.shape:
        return 0.0
    if not np.issubdtype(b.dtype, np.floating):
        return float(np.mean(a == b)) if b.size else 1.0
    x, y = (np.nan_to_num(v.astype(np.float64)).ravel() for v in (a, b))
    sizes = np.sqrt(np.dot(x, x) * np.dot(y, y))
    return float(np.dot(x, y) / sizes) if sizes else float(not x.any() and not y.any())


__all__ = ["Metric", "ScoreError", "Scores", "agreement"]
