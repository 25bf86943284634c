"""Forests from the two forms in which ONNX lists the nodes of trees."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...ir.graph import Value
from ..errors import ImportFault
from ..node import OnnxNode
from .common import integers, numbers
from .forest import EQ, GT, GTE, LEQ, LT, MEMBER, NEQ, Array, Forest, Votes

_LEAF = 7
_MODES = {
    "BRANCH_LEQ": LEQ, "BRANCH_LT": LT, "BRANCH_GTE": GTE, "BRANCH_GT": GT, "BRANCH_EQ": EQ,
    "BRANCH_NEQ": NEQ, "LEAF": _LEAF,
}  # fmt: skip


def _column(node: OnnxNode, name: str, count: int, default: int | None = None) -> Array:
    found = integers(node, name)
    if not found.size and default is not None:
        return np.full(count, default)
    if found.size != count:
        raise ImportFault(f"has {found.size} {name} where it should have {count}")
    return found


def _floats(node: OnnxNode, name: str, x: Value, count: int) -> Array:
    found = numbers(node, name, x)
    have = 0 if found is None else found.size
    if have != count:
        raise ImportFault(f"has {have} {name} where it should have {count}")
    return np.zeros(0, x.dtype) if found is None else found


# ---- opset 5 -------------------------------------------------------------------------------------


def read_split(node: OnnxNode, x: Value) -> Forest:
    """TreeEnsemble: ``nodes_*`` are inner nodes, ``leaf_*`` leaves; numbers are positions."""
    features = integers(node, "nodes_featureids")
    count = features.size
    modes: Any = node.attrs["nodes_modes"]
    targets = integers(node, "leaf_targetids")
    votes = Votes(
        np.arange(targets.size), targets, _floats(node, "leaf_weights", x, targets.size),
        targets.size,
    )  # fmt: skip
    codes = np.asarray(modes, np.int64).reshape(-1)
    if codes.size != count or (codes < LEQ).any() or (codes > MEMBER).any():
        raise ImportFault(f"nodes_modes must hold {count} numbers from {LEQ} to {MEMBER}")
    return Forest(
        features, _floats(node, "nodes_splits", x, count), codes,
        _branch(node, "true", count), _branch(node, "false", count),
        _column(node, "nodes_missing_value_tracks_true", count, 0) != 0,
        _roots(node), votes, _members(node, x, np.flatnonzero(codes == MEMBER)),
    )  # fmt: skip


def _branch(node: OnnxNode, kind: str, count: int) -> Array:
    ids = _column(node, f"nodes_{kind}nodeids", count)
    if (ids < 0).any():
        raise ImportFault(f"nodes_{kind}nodeids holds negative numbers")
    return np.where(_column(node, f"nodes_{kind}leafs", count) != 0, ~ids, ids)


def _roots(node: OnnxNode) -> Array:
    roots = integers(node, "tree_roots")
    if not roots.size or (roots < 0).any():
        raise ImportFault("tree_roots must hold numbers of nodes")
    return roots


def _members(node: OnnxNode, x: Value, nodes: Array) -> dict[int, Array]:
    """The sets of the nodes of mode MEMBER, each of which ends in a NaN."""
    if not nodes.size:
        return {}
    values = numbers(node, "membership_values", x)
    listed = np.zeros(0, x.dtype) if values is None else values
    ends = np.flatnonzero(np.isnan(listed))
    if ends.size == nodes.size - 1 and listed.size and not np.isnan(listed[-1]):
        ends = np.append(ends, listed.size)
    if ends.size != nodes.size:
        raise ImportFault(f"membership_values holds {ends.size} sets for {nodes.size} nodes")
    starts = [0, *(ends[:-1] + 1).tolist()]
    return {
        int(number): listed[start:end]
        for number, start, end in zip(nodes, starts, ends, strict=True)
    }


# ---- opsets 1 to 4 -------------------------------------------------------------------------------


def read_listed(node: OnnxNode, x: Value, prefix: str) -> Forest:
    """TreeEnsembleRegressor (``prefix`` target) and TreeEnsembleClassifier (class).

    Nodes are identified by the number of their tree and a number in it; the first one of a tree is
    its root.
    """
    trees = integers(node, "nodes_treeids")
    count = trees.size
    ids = _Ids(trees, _column(node, "nodes_nodeids", count))
    codes = _codes(node, count)
    leaf = codes == _LEAF
    refs = np.where(leaf, -np.cumsum(leaf), np.cumsum(~leaf) - 1)
    inner = np.flatnonzero(~leaf)

    def child(name: str) -> Array:
        found: Array = refs[ids.find(trees[inner], _column(node, name, count)[inner])]
        return found

    tracks = _column(node, "nodes_missing_value_tracks_true", count, 0)
    return Forest(
        _column(node, "nodes_featureids", count)[inner],
        _floats(node, "nodes_values", x, count)[inner],
        codes[inner],
        child("nodes_truenodeids"),
        child("nodes_falsenodeids"),
        tracks[inner] != 0,
        refs[ids.firsts],
        _votes(node, x, prefix, ids, refs),
    )


def _codes(node: OnnxNode, count: int) -> Array:
    modes: Any = node.attrs.get("nodes_modes", ())
    unknown = set(modes) - set(_MODES)
    if unknown or len(modes) != count or not count:
        raise ImportFault(
            f"nodes_modes holds {min(unknown)!r}" if unknown else
            f"has {len(modes)} nodes_modes for {count} nodes"
        )  # fmt: skip
    return np.array([_MODES[m] for m in modes])


def _votes(node: OnnxNode, x: Value, prefix: str, ids: _Ids, refs: Array) -> Votes:
    targets = integers(node, f"{prefix}_ids")
    trees = _column(node, f"{prefix}_treeids", targets.size)
    at = refs[ids.find(trees, _column(node, f"{prefix}_nodeids", targets.size))]
    weights = _floats(node, f"{prefix}_weights", x, targets.size)
    kept = at < 0
    return Votes(~at[kept], targets[kept], weights[kept], int((refs < 0).sum()))


class _Ids:
    """Indices of nodes by tree and number; raises :class:`ImportFault` for duplicates."""

    def __init__(self, trees: Array, nodes: Array) -> None:
        self._trees, self.firsts, which = np.unique(trees, return_index=True, return_inverse=True)
        self._low, high = int(nodes.min(initial=0)), int(nodes.max(initial=0))
        self._span = high - self._low + 1
        if self._span * len(self._trees) >= 2**62:
            raise ImportFault("the numbers of its nodes are absurd")
        keys = which * self._span + (nodes - self._low)
        self._order = np.argsort(keys, kind="stable")
        self._keys = keys[self._order]
        if (np.diff(self._keys) == 0).any():
            raise ImportFault("a node is there twice")

    def find(self, trees: Array, nodes: Array) -> Array:
        """The indices of nodes; raises :class:`ImportFault` for one that does not exist."""
        which = np.searchsorted(self._trees, trees)
        keys = which * self._span + (nodes - self._low)
        at = np.minimum(np.searchsorted(self._keys, keys), max(len(self._keys) - 1, 0))
        near = (nodes >= self._low) & (nodes <= self._low + self._span - 1)
        known = np.isin(trees, self._trees) & near
        if not (known.all() and (self._keys[at] == keys).all()):
            raise ImportFault("a tree leads to a node that is not there")
        found: Array = self._order[at]
        return found
