"""Which channels are dropped: the least important ones, as far as every axis allows.

An axis of ``n`` positions keeps ``n * (1 - ratio)`` of them, rounded to all of them or to a
multiple of what kernels take at a time, or of a half of that, a quarter and so on where it has less
than four times as many. Channels are gone through from the least important one on, and dropped
where every axis that has positions of them may still lose these. So axes that share channels in
part, such as those of concatenations, need no special case.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase

import numpy as np

from ...ir.graph import Node
from .channels import Channels

MOST = 0.9
"""With one ratio for the whole model, an axis loses at most this share of its positions."""


@dataclass(frozen=True)
class Amounts:
    """How much is dropped.

    ``ratio`` is the share of channels, 0 to 1 (1 excluded): of every axis, or with ``overall`` of
    all channels that may be dropped together. ``layers`` are pairs of a pattern and a ratio for the
    channels that the nodes of these names make; the first that matches counts. Axes of four times
    ``multiple`` or more stay multiples of it.
    """

    ratio: float = 0.3
    overall: bool = False
    layers: tuple[tuple[str, float], ...] = ()
    multiple: int = 1

    def of(self, nodes: list[Node]) -> float:
        """The ratio of an item that these nodes make."""
        for pattern, ratio in self.layers:
            if any(_matches(pattern, node) for node in nodes):
                return ratio
        return MOST if self.overall else self.ratio


def _matches(pattern: str, node: Node) -> bool:
    return any(fnmatchcase(name, pattern) for name in (node.name, node.key, *node.origins))


def select(channels: Channels, scores: np.ndarray, amounts: Amounts) -> np.ndarray:
    """The channels to drop, bool for each, by their ``scores`` (NaN: none to be dropped)."""
    scores = np.where(_candidates(channels), scores, np.nan)
    scores = normalized(channels, scores)
    makers = _makers(channels)
    ratios = {item: amounts.of(makers.get(item, [])) for item in channels.base}
    budget = _budgets(channels, lambda item, n: kept_width(n, ratios[item], amounts.multiple))
    most = int(round(amounts.ratio * np.isfinite(scores).sum())) if amounts.overall else None
    dropped = _drop_least(channels, scores, budget, most)
    if not amounts.overall or amounts.multiple == 1:
        return dropped
    return to_multiples(channels, np.where(dropped, scores, np.nan), amounts.multiple)


def to_multiples(channels: Channels, scores: np.ndarray, multiple: int) -> np.ndarray:
    """The channels with a score, bool for each, without the most important ones of every axis that
    would have no position left, or a number of them that is no multiple.
    """
    lost = _lost(channels, np.isfinite(scores))
    budget = _budgets(channels, lambda i, n: _up(n - lost.get(i, 0), n, multiple))
    return _drop_least(channels, scores, budget, None)


def normalized(channels: Channels, scores: np.ndarray) -> np.ndarray:
    """The scores in terms of the mean of their group."""
    marks = channels.footprints.marks
    _, group = np.unique(marks, return_inverse=True)
    known = np.isfinite(scores)
    count = np.bincount(group[known], minlength=group.max(initial=-1) + 1)
    total = np.bincount(group[known], scores[known], minlength=len(count))
    mean = total / np.maximum(count, 1)
    return scores / np.where(mean > 0, mean, 1)[group]


def kept_width(size: int, ratio: float, multiple: int) -> int:
    """How many of ``size`` positions are kept: ``size * (1 - ratio)``, rounded, one at least."""
    step, wanted = _step(size, multiple), size * (1 - ratio)
    rounded = min(size, max(step, round(wanted / step) * step))
    return size if size - wanted < abs(rounded - wanted) else rounded


def _up(kept: int, size: int, multiple: int) -> int:
    """A number of kept positions, rounded up, one step at least."""
    step = _step(size, multiple)
    return min(size, max(1, -(-kept // step)) * step)


def _step(size: int, multiple: int) -> int:
    """What ``multiple`` is for an axis of ``size``: a quarter of it at most."""
    while multiple > 1 and size < 4 * multiple:
        multiple //= 2
    return multiple


def _candidates(channels: Channels) -> np.ndarray:
    """Channels of groups that may be dropped."""
    found = np.zeros(channels.count, bool)
    for group in channels.groups:
        if group.reason is None:
            found[group.channels] = True
    return found


def _makers(channels: Channels) -> dict[int, list[Node]]:
    """The nodes whose weights make the positions of each item."""
    found: dict[int, list[Node]] = {}
    for p in channels.coupling.parameters:
        if p.makes:
            found.setdefault(channels.coupling.find(p.item), []).append(p.node)
    return found


def _budgets(channels: Channels, kept: Callable[[int, int], int]) -> dict[int, int]:
    """How many positions each item may lose, from how many it keeps of how many."""
    sizes = {item: channels.coupling.size(item) for item in channels.base}
    return {item: n - kept(item, n) for item, n in sizes.items()}


def _drop_least(
    channels: Channels, scores: np.ndarray, budget: dict[int, int], most: int | None
) -> np.ndarray:
    left, prints = dict(budget), channels.footprints
    dropped = np.zeros(channels.count, bool)
    order = np.argsort(scores, kind="stable")
    order = order[np.isfinite(scores[order])]
    starts, items, counts = prints.starts, prints.items, prints.counts
    for channel in order.tolist():
        if most is not None and not most:
            break
        span = slice(starts[channel], starts[channel + 1])
        needs = list(zip(items[span].tolist(), counts[span].tolist(), strict=True))
        if any(left[item] < count for item, count in needs):
            continue
        for item, count in needs:
            left[item] -= count
        dropped[channel] = True
        most = None if most is None else most - 1
    return dropped


def _lost(channels: Channels, dropped: np.ndarray) -> dict[int, int]:
    """How many positions each item loses."""
    items, counts = np.unique(channels.items[dropped[channels.label]], return_counts=True)
    return dict(zip(items.tolist(), counts.tolist(), strict=True))


__all__ = ["Amounts", "kept_width", "normalized", "select", "to_multiples"]
