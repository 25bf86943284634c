"""Small nets with every way in which axes couple, and the checks that pruning them is exact."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from graphkiln.ir.graph import Graph
from graphkiln.ir.interpreter import evaluate
from graphkiln.ir.verify import verify
from graphkiln.passes.base import PassContext
from graphkiln.passes.prune import CRITERIA, Amounts, Channels, dropped_positions, remove, select

from .graph_text import constant_lines, graph_of
from .masking import masked
from .pass_checks import random_feeds, run, same


def array(*shape: int, seed: int = 1) -> np.ndarray:
    """Weights whose sums have the size of their inputs."""
    random = np.random.default_rng([seed, *shape])
    fan = max(1, int(np.prod(shape[1:])))
    return (random.standard_normal(shape) / np.sqrt(fan)).astype(np.float32)


@dataclass(frozen=True)
class Net:
    """A net: lines of a graph whose last one names the results.

    ``x`` are parameters, ``shapes`` those of random weights, ``arrays`` other constants. ``groups``
    are what it has that may be dropped: the number of channels by the node that makes them.
    """

    lines: str
    shapes: Mapping[str, tuple[int, ...]]
    groups: Mapping[str, int]
    x: str = "%x: float32[2,3,6,6]"
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)

    def graph(self) -> Graph:
        """The typed graph, after the passes that find sizes."""
        made = {n: array(*s, seed=i) for i, (n, s) in enumerate(self.shapes.items())}
        held, by_hash = constant_lines({**made, **self.arrays})
        *body, results = (line.strip() for line in self.lines.strip().split("\n"))
        names = ", ".join(f"o{i}" for i, _ in enumerate(results.split(",")))
        text = "\n".join(body)
        found = graph_of(
            f"graph main({self.x}) -> ({names}) {{\n{held}\n{text}\nreturn {results}\n}}", by_hash
        )
        run(found, "shapes,fold,cse,dce")
        return found


def free_groups(channels: Channels) -> dict[str, int]:
    """The number of channels that may be dropped, by the node that makes them."""
    found: dict[str, int] = {}
    for group in channels.groups:
        if group.reason is None:
            found[group.name] = found.get(group.name, 0) + len(group.channels)
    return found


def prune_exactly(graph: Graph, amounts: Amounts, criterion: str = "l2") -> Graph:
    """Prune a copy of the graph, and assert that it computes what the masked graph does."""
    context = PassContext()
    pruned = graph.copy()
    context.refresh(pruned)
    channels = Channels(pruned)
    dropped = select(channels, CRITERIA[criterion](channels, context), amounts)
    assert_exact(graph, pruned, channels, dropped, context)
    return pruned


def assert_exact(
    graph: Graph, pruned: Graph, channels: Channels, dropped: np.ndarray, context: PassContext
) -> None:
    """Drop channels from ``pruned``, a copy of ``graph``: results are those of masked channels."""
    lost = dropped_positions(channels, dropped)
    feeds = random_feeds(graph)
    remove(pruned, channels, dropped, context, "pruned")
    verify(pruned)
    same(evaluate(pruned, feeds, check_types=True), evaluate(masked(graph, lost), feeds))


__all__ = ["Net", "array", "assert_exact", "free_groups", "prune_exactly"]
