"""Services of a pass context: data, a runner of graphs, random numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias

import numpy as np

from ..ir.graph import Graph
from ..ir.interpreter import evaluate

Feeds: TypeAlias = "Mapping[str, Any]"
"""A value for each input of a model, by name."""

SEED = 0
"""The seed of random numbers; it is fixed, so that the same input gives the same artifact."""


class Runner(Protocol):
    """Makes a function from feeds to results (in order) of a graph, which it does not change."""

    def __call__(self, graph: Graph) -> Callable[[Feeds], list[Any]]: ...


class Journal(Protocol):
    """Keeps results of long work by name, as JSON holds them, for work that is done again after it
    was stopped.
    """

    def load(self, name: str) -> Any:
        """A result that was kept, or None."""
        ...

    def save(self, name: str, value: Any) -> None:
        """Keep a result."""
        ...

    def is_due(self) -> bool:
        """Is it time to keep what is still under way? It is now and then, if anything is kept."""
        ...


class NoJournal:
    """Keeps nothing."""

    def load(self, name: str) -> Any:
        return None

    def save(self, name: str, value: Any) -> None:
        pass

    def is_due(self) -> bool:
        return False


def reference_runner(graph: Graph) -> Callable[[Feeds], list[Any]]:
    """Runs a graph by the reference evaluation, op by op: correct and slow."""
    snapshot = graph.copy()
    return lambda feeds: list(evaluate(snapshot, feeds))


def fresh_random() -> np.random.Generator:
    """A generator of random numbers that starts at :data:`SEED`."""
    return np.random.default_rng(SEED)


__all__ = [
    "SEED", "Feeds", "Journal", "NoJournal", "Runner", "fresh_random", "reference_runner",
]  # fmt: skip
