"""Packed weights as constants, and lists of their steps where these are needed, or faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ...ir.choices import KernelShape
from ...ir.graph import Value
from ...ir.split_weights import SplitWeights, list_steps, share_of_steps, split_pairs
from .planner import Planner

_LEAST_ZEROS = 0.4
"""Weights with a smaller share of zeros would not gain by a list, so nobody packs them to see."""


@dataclass(frozen=True)
class PackedWeights:
    """Convolution weights ``[g, Mt, Cb, *K, c/d, t*d]`` or a matrix ``[Nt, K/d, t*d]``.

    ``key`` determines the ``array``, ``depth`` is ``d``. All steps of ``listed`` weights, whose
    tiles are one vector, go into a list.
    """

    key: tuple[object, ...]
    array: np.ndarray
    depth: int = 1
    listed: bool = False

    def operands(self, p: Planner, name: str, bias: Sequence[Value]) -> list[Value | None]:
        """The operands of a blocked convolution or a packed product, after the data.

        These are the weights, the bias (one value, or none), and where steps are in a list (see
        :mod:`...ir.split_weights`) the residual, its steps and its starts.
        """
        split = self._split(p)
        if split is None:
            return [p.constant(self.key, self.array, name), *bias]
        start = bias[0] if bias else None
        parts = {"main": split.main, "residual": split.residual, "steps": split.steps,
                 "starts": split.starts}  # fmt: skip
        weight, *rest = (p.constant((*self.key, k), a, f"{name}_{k}") for k, a in parts.items())
        return [weight, start, *rest]

    def _split(self, p: Planner) -> SplitWeights | None:
        saturates = self.array.dtype == np.int8 and self.depth == p.layouts.dot_depth
        limit, tiles = p.layouts.pair_limit if saturates else None, 1 if self.array.ndim == 3 else 2
        vector = p.block * self.depth
        if self.listed:
            return list_steps(self.array, tiles, vector, limit)
        return None if limit is None else split_pairs(self.array, tiles, vector, limit)


def listed_weights(
    p: Planner, weights: np.ndarray, shape: KernelShape, pack: Callable[[int], PackedWeights]
) -> PackedWeights | None:
    """``pack(tile)`` with tiles of one vector, where the target is faster with a list of steps.

    None where it is not. ``weights`` are those before packing.
    """
    if weights.size == 0 or np.count_nonzero(weights) > (1 - _LEAST_ZEROS) * weights.size:
        return None
    packed = pack(p.block)
    if not p.layouts.lists_steps(shape, share_of_steps(packed.array)):
        return None
    return PackedWeights((*packed.key, "listed"), packed.array, packed.depth, listed=True)


__all__ = ["PackedWeights", "listed_weights"]
