"""Reference evaluation of the ops in :mod:`.ml`, with NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import GraphError, Node

Array = np.ndarray


def one_hot(node: Node, inputs: list[Any]) -> list[Array]:
    """OneHotEncoder; raises :class:`GraphError` for an element of no category, unless ``zeros``."""
    (x,) = inputs
    strings = x.dtype == object
    categories: Any = node.attrs["cats_strings" if strings else "cats_int64s"]
    elements = x if strings else x.astype(np.int64)
    hits = elements[..., None] == np.array(categories, elements.dtype)
    last = np.cumsum(hits[..., ::-1], -1)[..., ::-1] == 1
    if not node.attrs.get("zeros", 1) and not hits.any(-1).all():
        raise GraphError("an element is in no category", node=node.name)
    return [(hits & last).astype(np.float32)]


def lookup(_node: Node, inputs: list[Any]) -> list[Array]:
    x, keys, values, default = inputs
    place = np.clip(np.searchsorted(keys, x), 0, len(keys) - 1)
    return [np.where(keys[place] == x, values[place], default)]


# ---- trees ---------------------------------------------------------------------------------------


def tree_ensemble(node: Node, inputs: list[Any]) -> list[Array]:
    x, features, thresholds, children, roots, weights, *rest = inputs
    starts, targets, missing = (*rest, None, None, None)[:3]
    leaves = _leaves(x, features, thresholds, children, roots, missing)
    aggregate = str(node.attrs.get("aggregate", "sum"))
    start, step = _AGGREGATES[aggregate]
    count = int(node.attrs["targets"])  # type: ignore[arg-type]
    out = np.full((len(x), count), start, x.dtype)
    for tree in leaves.T:
        for row, leaf in enumerate(tree):
            if starts is None:
                out[row] = step(out[row], weights[leaf])
                continue
            for i in range(starts[leaf], starts[leaf + 1]):
                out[row, targets[i]] = step(out[row, targets[i]], weights[i])
    return [np.where(out == start, x.dtype.type(0), out)]


_AGGREGATES: dict[str, tuple[float, Any]] = {
    "sum": (0.0, np.add), "min": (np.inf, np.minimum), "max": (-np.inf, np.maximum),
}  # fmt: skip


def _leaves(
    x: Array, features: Array, thresholds: Array, children: Array, roots: Array,
    missing: Array | None,
) -> Array:  # fmt: skip
    """The leaf of each tree [N, trees] that each row ends in."""
    count = len(features)
    place = np.tile(roots, (len(x), 1))
    rows = np.arange(len(x))[:, None]
    while (place < count).any():
        at = np.minimum(place, count - 1)
        value = x[rows, features[at]]
        first = value <= thresholds[at]
        if missing is not None:
            first |= missing[at] & np.isnan(value)
        place = np.where(place < count, np.where(first, children[at, 0], children[at, 1]), place)
    return place - count


# ---- pairwise coupling ---------------------------------------------------------------------------


def coupled(node: Node, inputs: list[Any]) -> list[Array]:
    (pairs,) = inputs
    classes = int(node.attrs["classes"])  # type: ignore[arg-type]
    rows = [_coupled_row(row, classes) for row in pairs]
    return [np.array(rows, pairs.dtype).reshape(len(pairs), classes)]


def _coupled_row(pairs: Array, classes: int) -> Array:
    """The fixed point of ``p_t += (p.Qp - (Qp)_t) / Q_tt``, p normalised after each step."""
    ratio = np.zeros((classes, classes), pairs.dtype)
    ratio[np.triu_indices(classes, 1)] = pairs
    ratio += np.tril(1 - ratio.T, -1)
    q = -ratio.T * ratio
    np.fill_diagonal(q, (ratio**2).sum(0))
    p = np.full(classes, 1 / classes, pairs.dtype)
    for _ in range(max(100, classes)):
        qp = q @ p
        total = p @ qp
        if np.abs(qp - total).max() < 0.005 / classes:
            break
        for t in range(classes):
            step = (total - qp[t]) / q[t, t]
            p[t] += step
            total = (total + step * (step * q[t, t] + 2 * qp[t])) / (1 + step) ** 2
            qp = (qp + step * q[t]) / (1 + step)
            p /= 1 + step
    return p
