"""Accuracy control: layers that cost most go back to floats, until the drop is within budget."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import GraphkilnError

T = TypeVar("T")


class BudgetError(GraphkilnError):
    """No layer can be quantized within the drop that was given."""


@dataclass(frozen=True)
class Candidate(Generic[T]):
    """A model with the layers that are left in floats, worst first, and its score."""

    model: T
    left: tuple[str, ...]
    score: float


def within_budget(
    attempt: Callable[[Collection[str]], Candidate[T]], first: Candidate[T], order: list[str],
    least: float,
) -> Candidate[T]:  # fmt: skip
    """The candidate that leaves the fewest layers of ``order``, its first ones, in floats, and
    whose score is at least ``least``.

    ``attempt`` makes a candidate that leaves some of them; ``first`` is the one that leaves none.
    As more layers in floats are hardly ever worse, the number is found by halving: a logarithm of
    attempts. Raises :class:`BudgetError` with the best candidate's figures if leaving all but one
    is not enough.
    """
    if first.score >= least:
        return first
    low, high = 0, len(order)
    best, tried = None, first
    while low + 1 < high:
        middle = (low + high) // 2
        found = attempt(order[:middle])
        tried = max(tried, found, key=lambda c: c.score)
        if found.score >= least:
            best, high = found, middle
        else:
            low = middle
    if best is None:
        raise BudgetError(
            f"no layer can be quantized with a score of {least:.6g} or more: the best found is"
            f" {tried.score:.6g}, with {len(tried.left)} of {len(order)} layers in floats"
        )
    return best


__all__ = ["BudgetError", "Candidate", "within_budget"]
