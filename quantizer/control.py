"""Accuracy control: layers that cost most go back to floats, until the drop is within budget."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import GraphkilnError

T = TypeVar("T")
R = TypeVar("R")


class BudgetError(GraphkilnError):
    """No layer can be quantized within the drop, or the time, that was given."""


@dataclass(frozen=True)
class Candidate(Generic[T]):
    """A model with the layers that are left in floats, worst first, and its score."""

    model: T
    left: tuple[str, ...]
    score: float


class Clock:
    """The time for attempts: so many ``seconds`` from now on, or as long as it takes (None)."""

    def __init__(self, seconds: float | None, now: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self._now = seconds, now
        self._start, self._longest = now(), 0.0
        self.stopped = False
        """Has another attempt been refused?"""

    def timed(self, attempt: Callable[[], R]) -> R:
        """Make an attempt: others are expected to take no longer than the longest one."""
        start = self._now()
        found = attempt()
        self._longest = max(self._longest, self._now() - start)
        return found

    def allows(self) -> bool:
        """Is there time for another attempt?"""
        if self.seconds is not None:
            self.stopped = self._now() - self._start + self._longest > self.seconds
        return not self.stopped


def within_budget(
    attempt: Callable[[Collection[str]], Candidate[T]], first: Candidate[T], order: list[str],
    least: float, clock: Clock | None = None, *, every: bool = False,
) -> Candidate[T]:  # fmt: skip
    """The candidate that leaves the fewest layers of ``order``, its first ones, and whose score is
    at least ``least``. Not all are left, unless ``every`` allows that.

    ``attempt`` makes a candidate that leaves some of them; ``first`` is the one that leaves none.
    As more layers left are hardly ever worse, the number is found by halving: a logarithm of
    attempts. When the ``clock`` allows no more of them, it is the best candidate so far that has
    the score. Raises :class:`BudgetError` with the best candidate's figures if there is none.
    """
    clock = clock or Clock(None)
    if first.score >= least:
        return first
    low, high = 0, len(order) + every
    best, tried = None, first
    while low + 1 < high and clock.allows():
        middle = (low + high) // 2
        found = attempt(order[:middle])
        tried = max(tried, found, key=lambda c: c.score)
        if found.score >= least:
            best, high = found, middle
        else:
            low = middle
    if best is None:
        least_score = f"a score of {least:.6g} or more"
        if clock.stopped:
            told = f"no model with {least_score} was found in {clock.seconds:g} s"
        else:
            told = f"no layer can be quantized with {least_score}"
        raise BudgetError(
            f"{told}: the best found is {tried.score:.6g}, with {len(tried.left)} of"
            f" {len(order)} layers left"
        )
    return best


__all__ = ["BudgetError", "Candidate", "Clock", "within_budget"]
