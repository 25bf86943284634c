"""The channels of a graph: sets of positions of axes that can only be dropped together.

Positions of one item (:mod:`.coupling`) are as many elements; relations say which elements of two
items belong together. The connected components of elements are the *channels*. Dropping one drops
its positions from every axis that has them: the filter of a convolution with its bias, the
parameters of its normalization, and the weights of all that read it, also by way of sums,
concatenations and views. A head of attention is one channel, of as many positions as it has
elements.

**What dropping means.** The results of the model are those of the whole model where each channel
that is dropped counts for 0 wherever it is summed over: in the products that read it, after biases,
normalizations and activations. Ops that are not sums over a channel, such as a normalization, keep
all of it, and the reason is told.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ...ir.graph import Graph
from .components import connected
from .coupling import FEW, Coupling, Parameter, Part, Relation

ALONE = "all of it belongs together: nothing would be left"
_SIBLING = "it is a factor of a product that is cut along another one"
_SINGLE = "one position of it cannot be dropped where it is used alone"


@dataclass(frozen=True)
class Group:
    """Channels that have positions on the same axes, equally many of each.

    ``channels`` are their numbers, ``parameters`` the axes of constants that have positions of
    them. ``reason`` is why none of them may be dropped, or None.
    """

    channels: np.ndarray
    parameters: tuple[Parameter, ...]
    reason: str | None

    @property
    def name(self) -> str:
        """The first node that makes the channels."""
        makers = [p.node.name for p in self.parameters if p.makes]
        return makers[0] if makers else self.parameters[0].node.name


class Channels:
    """All channels of a graph, in time linear in its axes and their positions.

    ``label`` has the number of the channel of each element. The elements of item ``i`` start at
    ``base[i]``; items without any, all of which is refused as a whole, are not in it. ``items`` and
    ``positions`` tell of each element which position of which item it is.
    """

    def __init__(self, graph: Graph) -> None:
        self.coupling = Coupling(graph)
        self._choice = _choices(self.coupling)
        self.base: dict[int, int] = {}
        self._layout()
        self._join()

    # ---- building ----------------------------------------------------------------------------

    def _layout(self) -> None:
        """Give elements to items that may lose some, and to those that they are related to."""
        coupling = self.coupling
        wanted = {coupling.find(i) for i in range(len(coupling)) if coupling.reason(i) is None}
        for relation, cut in self._choice:
            wanted.add(coupling.find(relation.item))
            for part, place in zip(relation.parts, cut, strict=True):
                if place is not None:
                    wanted.add(coupling.find(part.items[place] or 0))
        total = 0
        sizes = []
        for item in sorted(wanted):
            self.base[item] = total
            sizes.append(coupling.size(item))
            total += coupling.size(item)
        order = np.array(sorted(wanted), np.int64)
        self.items = np.repeat(order, np.array(sizes, np.int64))
        starts = np.array([self.base[i] for i in order.tolist()], np.int64)
        self.positions = np.arange(total) - np.repeat(starts, np.array(sizes, np.int64))

    def _join(self) -> None:
        coupling, total = self.coupling, len(self.items)
        pairs: list[tuple[np.ndarray, np.ndarray]] = []
        refused = np.zeros(total, np.int32)
        reasons: list[str] = [""]
        for item, base in self.base.items():
            reason = coupling.reason(item)
            if reason is not None:
                reasons.append(reason)
                refused[base : base + coupling.size(item)] = len(reasons) - 1
        for relation, cut in self._choice:
            base = self.base[coupling.find(relation.item)]
            for part, place in zip(relation.parts, cut, strict=True):
                grid = base + part.grid()
                if place is None:
                    reasons.append(_why_whole(coupling, part))
                    refused[grid.reshape(-1)] = len(reasons) - 1
                    continue
                factor = self.base[coupling.find(part.items[place] or 0)]
                shape = [1] * grid.ndim
                shape[place] = -1
                index = factor + np.arange(part.sizes[place]).reshape(shape)
                pairs.append((grid.reshape(-1), np.broadcast_to(index, grid.shape).reshape(-1)))
        self.label = connected(total, pairs)
        self.count = int(self.label.max(initial=-1)) + 1
        self._reasons = reasons
        self._refused = np.zeros(self.count, np.int32)
        np.maximum.at(self._refused, self.label, refused)

    # ---- reading -----------------------------------------------------------------------------

    def reason(self, channel: int) -> str | None:
        """Why a channel may not be dropped, or None."""
        return self._reasons[self._refused[channel]] or None

    @property
    def free(self) -> np.ndarray:
        """Which channels may be dropped, bool for each."""
        return self._refused == 0

    def of(self, item: int) -> np.ndarray | None:
        """The channel of each position of an item, or None where all of it stays."""
        root = self.coupling.find(item)
        base = self.base.get(root)
        return None if base is None else self.label[base : base + self.coupling.size(root)]

    @cached_property
    def footprints(self) -> Footprints:
        """The items that each channel has positions of, and how many."""
        return Footprints.of(self.label, self.items, self.count)

    @cached_property
    def groups(self) -> list[Group]:
        """The groups of channels that have weights or other parameters, in the graph's order.

        Items that stay as a whole are groups, too, which say why.
        """
        marks = self.footprints.marks
        by_mark: dict[tuple[int, int], list[int]] = {}
        numbers = np.flatnonzero(self._with_parameters())
        for channel, mark in zip(numbers.tolist(), marks[numbers].tolist(), strict=True):
            by_mark.setdefault((mark, int(self._refused[channel])), []).append(channel)
        of_item: dict[int, list[Parameter]] = {}
        for p in self.coupling.parameters:
            of_item.setdefault(self.coupling.find(p.item), []).append(p)
        found = []
        for (_, refused), channels in by_mark.items():
            items = self.footprints.items_of(channels[0])
            parameters = [p for i in items for p in of_item.get(i, ())]
            reason = self._reasons[refused] or None
            if reason is None and self._is_alone(channels):
                reason = ALONE
            found.append(Group(np.array(channels), tuple(parameters), reason))
        for item, parameters in of_item.items():
            if item not in self.base:
                nothing = np.zeros(0, np.int64)
                found.append(Group(nothing, tuple(parameters), self.coupling.reason(item)))
        order = {node: n for n, node in enumerate(self.coupling.factors)}
        return sorted(found, key=lambda g: min(order[p.node] for p in g.parameters))

    def _with_parameters(self) -> np.ndarray:
        found = np.zeros(self.count, bool)
        for p in self.coupling.parameters:
            label = self.of(p.item)
            if label is not None:
                found[label] = True
        return found

    def _is_alone(self, channels: Sequence[int]) -> bool:
        """Would an axis lose all of its positions with the one channel?"""
        if len(channels) > 1:
            return False
        start, end = self.footprints.starts[channels[0] : channels[0] + 2]
        pairs = zip(self.footprints.items[start:end], self.footprints.counts[start:end],
                    strict=True)  # fmt: skip
        return any(self.coupling.size(int(i)) == count for i, count in pairs)


@dataclass(frozen=True)
class Footprints:
    """How many positions of which items channel ``c`` has: ``items`` and ``counts`` from
    ``starts[c]`` to ``starts[c + 1]``. Channels with equal ``marks`` have the same.
    """

    starts: np.ndarray
    items: np.ndarray
    counts: np.ndarray
    marks: np.ndarray

    @classmethod
    def of(cls, label: np.ndarray, items: np.ndarray, count: int) -> Footprints:
        """The footprints of ``count`` channels; ``label`` and ``items`` are those of elements."""
        stride = int(items.max(initial=0)) + 1
        keys, counts = np.unique(label * stride + items, return_counts=True)
        channels, held = keys // stride, keys % stride
        # The sum of random numbers, one for each item: equal sums are equal sets.
        numbers = np.random.default_rng(0).integers(0, 2**63, stride, dtype=np.uint64)
        marks = np.zeros(count, np.uint64)
        np.add.at(marks, channels, numbers[held] * counts.astype(np.uint64))
        starts = np.searchsorted(channels, np.arange(count + 1))
        return cls(starts, held, counts, marks)

    def items_of(self, channel: int) -> list[int]:
        """The items of a channel."""
        return [int(i) for i in self.items[self.starts[channel] : self.starts[channel + 1]]]


def _choices(coupling: Coupling) -> list[tuple[Relation, list[int | None]]]:
    """For each relation the place of the factor that is cut in each part, None where none is.

    The other factors of that part stay whole. Parts whose factors all have few indices come last:
    of two heads of keys, each for four of queries, those of queries are cut.
    """
    cut: set[int] = set()
    chosen: list[list[int | None]] = [[None] * len(r.parts) for r in coupling.relations]
    for last in (False, True):
        for relation, places in zip(coupling.relations, chosen, strict=True):
            for i, part in enumerate(relation.parts):
                if places[i] is None and (last or _has_many(coupling, part)):
                    places[i] = _cut(coupling, part, cut)
    return list(zip(coupling.relations, chosen, strict=True))


def _cut(coupling: Coupling, part: Part, cut: set[int]) -> int | None:
    """Choose the factor of a part that is cut, and refuse the others."""
    place = _cut_factor(coupling, part, cut)
    for k, item in enumerate(part.items):
        if item is not None and k != place:
            coupling.refuse(item, _SIBLING)
    if place is not None:
        cut.add(coupling.find(part.items[place] or 0))
    return place


def _has_many(coupling: Coupling, part: Part) -> bool:
    pairs = zip(part.items, part.sizes, strict=True)
    return any(
        i is not None and size >= FEW and coupling.reason(i) is None for i, size in pairs
    )  # fmt: skip


def _cut_factor(coupling: Coupling, part: Part, cut: set[int]) -> int | None:
    """The place of the factor that is cut: one that is cut elsewhere, or else the outermost that
    has more than a few indices, or else the largest."""
    open_ = [
        k for k, item in enumerate(part.items)
        if item is not None and coupling.reason(item) is None
    ]  # fmt: skip
    if not open_:
        return None
    for k in open_:
        if coupling.find(part.items[k] or 0) in cut:
            return k
    many = [k for k in open_ if part.sizes[k] >= FEW]
    return many[0] if many else max(open_, key=lambda k: part.sizes[k])


def _why_whole(coupling: Coupling, part: Part) -> str:
    """The reason for the outermost factor of more than one index."""
    reasons = [coupling.reason(item) for item in part.items if item is not None]
    return next((r for r in reasons if r is not None), _SINGLE)


__all__ = ["ALONE", "Channels", "Footprints", "Group"]
