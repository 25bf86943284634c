"""Decision trees as arrays, and how any comparison becomes ``x <= threshold``.

x < t    =  x <= the number before t
x >= t   =  not x < t,  x > t = not x <= t     (the children swap)
x == t   =  x <= t, then not x < t             (a second node)
x in S   =  a search for x among the sorted members, then x == the one found
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import ImportFault

LEQ, LT, GTE, GT, EQ, NEQ, MEMBER = range(7)

Array = np.ndarray


@dataclass
class Votes:
    """The values of leaves: leaf ``leaf[i]`` has ``weight[i]`` for target ``target[i]``."""

    leaf: Array
    target: Array
    weight: Array
    leaves: int


@dataclass
class Forest:
    """Trees whose inner nodes and leaves are numbered separately.

    ``yes``, ``no`` and ``roots`` are numbers of inner nodes, or ``~i`` for leaf ``i``. ``modes``
    are the comparisons, ``tracks`` tells whether NaN goes to ``yes``, and ``members`` are the sets
    of nodes of mode MEMBER.
    """

    features: Array
    splits: Array
    modes: Array
    yes: Array
    no: Array
    tracks: Array
    roots: Array
    votes: Votes
    members: Mapping[int, Array] = field(default_factory=dict)

    def check(self) -> None:
        """Raise :class:`ImportFault` unless every walk from a root ends in a leaf."""
        count = len(self.features)
        for refs in (self.yes, self.no, self.roots):
            if refs.size and (refs.max() >= count or ~refs.min() >= self.votes.leaves):
                raise ImportFault("a tree leads to a node that is not there")
        if self.features.size and self.features.min() < 0:
            raise ImportFault("a node compares a negative feature")
        if len(self.votes.target) and self.votes.target.min() < 0:
            raise ImportFault("a leaf names a negative target")
        if _peeled(self.yes, self.no) < count:
            raise ImportFault("the nodes of a tree form a circle")


def _peeled(yes: Array, no: Array) -> int:
    """The number of nodes that are not on a cycle, nor reached from one."""
    refs = np.concatenate([yes, no])
    waiting = np.bincount(refs[refs >= 0], minlength=len(yes))
    ready, done = np.flatnonzero(waiting == 0), 0
    while ready.size:
        done += ready.size
        refs = np.concatenate([yes[ready], no[ready]])
        refs = refs[refs >= 0]
        np.subtract.at(waiting, refs, 1)
        ready = np.unique(refs)
        ready = ready[waiting[ready] == 0]
    return done


# ---- comparisons ---------------------------------------------------------------------------------


@dataclass
class Nodes:
    """Nodes that all test ``x <= split``; ``missing`` tells whether NaN goes to ``first``."""

    features: Array
    splits: Array
    first: Array
    second: Array
    missing: Array

    def extended(self, other: Nodes) -> Nodes:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return Nodes(*(np.concatenate(pair) for pair in pairs))


def before(values: Array) -> Array:
    """The greatest number below each; NaN for -inf, as no number is below or equal to NaN."""
    lower = np.nextafter(values, np.array(-np.inf, values.dtype))
    return np.where(values == -np.inf, np.array(np.nan, values.dtype), lower)


def plain_nodes(forest: Forest) -> Nodes:
    """The forest's nodes in the form ``x <= split``; new nodes get numbers after theirs."""
    modes = forest.modes
    swap = np.isin(modes, (GTE, GT, NEQ))
    nodes = Nodes(
        forest.features,
        np.where(np.isin(modes, (LT, GTE)), before(forest.splits), forest.splits),
        np.where(swap, forest.no, forest.yes),
        np.where(swap, forest.yes, forest.no),
        forest.tracks ^ swap,
    )
    equal = np.flatnonzero(np.isin(modes, (EQ, NEQ)))
    if equal.size:
        below = Nodes(
            nodes.features[equal], before(nodes.splits[equal]), nodes.second[equal],
            nodes.first[equal], np.zeros(equal.size, bool),
        )  # fmt: skip
        nodes.first[equal] = len(modes) + np.arange(equal.size)
        nodes = nodes.extended(below)
    searches = _Searches(nodes)
    for number, members in forest.members.items():
        searches.add(number, np.unique(members))
    return searches.result()


class _Searches:
    """Replaces nodes that test for a set by binary searches among its members.

    NaN goes to ``second`` at each node, and so reaches the last member, which decides for it.
    """

    def __init__(self, nodes: Nodes) -> None:
        self.nodes = nodes
        self.count = len(nodes.features)
        self.made: list[tuple[int, float, int, int, bool]] = []

    def add(self, number: int, members: Array) -> None:
        nodes = self.nodes
        if not members.size:
            nodes.splits[number] = np.nan
            return
        self.feature = int(nodes.features[number])
        self.yes, self.no = int(nodes.first[number]), int(nodes.second[number])
        self.tracks = bool(nodes.missing[number])
        _, split, first, second, missing = self._search(members, last=True)
        nodes.splits[number], nodes.missing[number] = split, missing
        nodes.first[number], nodes.second[number] = first, second

    def _search(self, members: Array, last: bool) -> tuple[int, float, int, int, bool]:
        """The node at which a search among ``members`` starts."""
        if members.size == 1:
            below = float(before(members)[0])
            found = self._make((self.feature, below, self.no, self.yes, False))
            return self.feature, float(members[0]), found, self.no, last and self.tracks
        half = (members.size + 1) // 2
        low = self._make(self._search(members[:half], False))
        high = self._make(self._search(members[half:], last))
        return self.feature, float(members[half - 1]), low, high, False

    def _make(self, node: tuple[int, float, int, int, bool]) -> int:
        self.made.append(node)
        return self.count + len(self.made) - 1

    def result(self) -> Nodes:
        if not self.made:
            return self.nodes
        columns = zip(*self.made, strict=True)
        own = vars(self.nodes).values()
        added = (np.array(c, a.dtype) for c, a in zip(columns, own, strict=True))
        return self.nodes.extended(Nodes(*added))


# ---- tables --------------------------------------------------------------------------------------


@dataclass
class Tables:
    """The inputs of ``kiln.TreeEnsemble`` after x, by name; see its documentation."""

    features: Array
    thresholds: Array
    children: Array
    roots: Array
    weights: Array
    starts: Array | None
    targets: Array | None
    missing: Array | None


def tables(forest: Forest, targets: int, aggregate: str) -> Tables:
    """The tables of a forest whose leaves vote for ``targets`` targets."""
    forest.check()
    nodes = plain_nodes(forest)
    if not nodes.features.size:
        nodes = _one_unused(nodes)
    count = len(nodes.features)

    def numbered(refs: Array) -> Array:
        return np.where(refs < 0, count + ~refs, refs).astype(np.int32)

    children = np.stack([numbered(nodes.first), numbered(nodes.second)], 1)
    return Tables(
        nodes.features.astype(np.int32), nodes.splits, children, numbered(forest.roots),
        *_leaf_tables(forest.votes, targets, aggregate),
        nodes.missing if nodes.missing.any() else None,
    )  # fmt: skip


def _one_unused(nodes: Nodes) -> Nodes:
    """A node that nothing refers to, since tables must not be empty."""
    refs = np.full(1, -1)
    return Nodes(np.zeros(1, np.int64), np.zeros(1, nodes.splits.dtype), refs, refs,
                 np.zeros(1, bool))  # fmt: skip


def _leaf_tables(
    votes: Votes, targets: int, aggregate: str
) -> tuple[Array, Array | None, Array | None]:
    """``weights``, ``starts`` and ``targets``: by leaf and target if few entries are empty."""
    if votes.target.size and votes.target.max() >= targets:
        raise ImportFault(f"a leaf names target {votes.target.max()} of {targets}")
    cells = votes.leaves * targets
    places = votes.leaf * targets + votes.target
    full = places.size == cells == np.unique(places).size
    if full or aggregate == "sum" and (targets == 1 or cells <= 2 * places.size):
        dense = np.zeros(cells, votes.weight.dtype)
        np.add.at(dense, places, votes.weight)
        return dense.reshape(votes.leaves, targets), None, None
    order = np.argsort(votes.leaf, kind="stable")
    counts = np.bincount(votes.leaf, minlength=votes.leaves)
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return votes.weight[order], starts, votes.target[order].astype(np.int32)
