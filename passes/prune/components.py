"""Connected components of large graphs whose edges are arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def connected(count: int, pairs: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The number of the component of each of ``count`` elements, from 0, in the order of their
    first elements.

    Each pair has two arrays of elements; the i-th of one is connected to the i-th of the other.
    The roots of trees are hooked to lesser ones, and all trees are flattened, until no edge joins
    two: Y. Shiloach and U. Vishkin, *An O(log n) Parallel Connectivity Algorithm*, 1982.
    """
    root = np.arange(count)
    if pairs:
        a = np.concatenate([p for p, _ in pairs])
        b = np.concatenate([q for _, q in pairs])
        while len(a):
            a, b = root[a], root[b]
            apart = a != b
            a, b = a[apart], b[apart]
            np.minimum.at(root, np.maximum(a, b), np.minimum(a, b))
            _flatten(root)
    _, label = np.unique(root, return_inverse=True)
    return label


def _flatten(root: np.ndarray) -> None:
    """Make every element point to the root of its tree."""
    while True:
        above = root[root]
        if np.array_equal(above, root):
            return
        root[:] = above


__all__ = ["connected"]
