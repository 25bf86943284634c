"""Packed weights as constants, split in two where the target's dot products need it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...ir.graph import Value
from ...ir.split_weights import split_pairs
from .planner import Planner


def packed_operands(
    p: Planner, key: tuple[object, ...], packed: np.ndarray, name: str, depth: int,
    bias: Sequence[Value],
) -> list[Value | None]:  # fmt: skip
    """The operands of a blocked convolution or a packed product, after the data.

    These are the weights, the bias (one value, or none), and if the weights were split (see
    :mod:`...ir.split_weights`) the residual, its steps and its starts. ``packed`` are convolution
    weights ``[g, Mt, Cb, *K, c/d, t*d]`` or a matrix ``[Nt, K/d, t*d]``; ``key`` determines them.
    """
    limit, tiles = p.layouts.pair_limit, 1 if packed.ndim == 3 else 2
    split = None
    if depth == p.layouts.dot_depth and limit is not None:
        split = split_pairs(packed, tiles, p.block * depth, limit)
    if split is None:
        return [p.constant(key, packed, name), *bias]
    start = bias[0] if bias else None
    parts = {"main": split.main, "residual": split.residual, "steps": split.steps,
             "starts": split.starts}  # fmt: skip
    weight, *rest = (p.constant((*key, k), a, f"{name}_{k}") for k, a in parts.items())
    return [weight, start, *rest]
