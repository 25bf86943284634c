"""Packed weights as the sum of two, for dot products that sum pairs in too few bits.

As weights are constants, it is known which pairs of products could saturate (:mod:`.pairs`): some
15 % in trained networks. A step of the reduction with such a pair is done twice, by halves of the
weights. Weights that graphkiln quantizes itself may be chosen so that no pair can.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from .pairs import saturating

_ROOMS = 8
"""The residual has room for so many eighths of all steps, so that layers of one shape, which differ
in how many steps they split, still have kernels in common."""


@dataclass(frozen=True)
class SplitWeights:
    """Packed int8 weights as ``main + residual``, in both of which pairs sum to little enough.

    ``main`` is shaped as the packed weights ``[*tiles, *steps, t*d]`` (see :mod:`.packing`). Few
    steps have a residual, so these are listed for each vector of ``L`` of the ``t`` columns:
    ``residual`` is ``[E, L*d]``, and ``steps`` ``[E]`` (int32) are the numbers of their steps in
    the order of memory. Vector ``v`` of tile ``i`` has those from ``starts[i*V + v]`` to
    ``starts[i*V + v + 1]`` (int32, ``V = t/L``). Entries past the last start are zero.
    """

    main: np.ndarray
    residual: np.ndarray
    steps: np.ndarray
    starts: np.ndarray


def split_pairs(packed: np.ndarray, tiles: int, vector: int, limit: int) -> SplitWeights | None:
    """Split int8 weights so that neighbours sum to ``-limit`` .. ``limit``; None where they do.

    The first ``tiles`` dims count tiles, and ``vector`` neighbours of the last dim belong to one
    vector. Raises :class:`ValueError` for limits below 128, which halves of int8 may exceed.
    """
    if limit < 128:
        raise ValueError(f"two halves of int8 may sum to 128, beyond the limit of {limit}")
    pairs = packed.reshape(-1, 2)
    beyond = saturating(pairs, limit)
    if not beyond.any():
        return None
    rest = np.where(beyond[:, None], pairs - (pairs >> 1), 0).astype(np.int8)
    main = (pairs - rest).reshape(packed.shape)
    count, steps = prod(packed.shape[:tiles]), prod(packed.shape[tiles:-1])
    # [tile, step, vector, ..] -> [tile, vector, step, ..], the order of the list
    by_vector = rest.reshape(count, steps, -1, vector).swapaxes(1, 2)
    split = by_vector.any(axis=-1)
    chosen = np.nonzero(split)
    room = _room(len(chosen[0]), split.size)
    residual, numbers = np.zeros((room, vector), np.int8), np.zeros(room, np.int32)
    residual[: len(chosen[0])], numbers[: len(chosen[0])] = by_vector[chosen], chosen[2]
    starts = np.concatenate([[0], np.cumsum(split.sum(axis=-1).reshape(-1))]).astype(np.int32)
    return SplitWeights(main, residual, numbers, starts)


def _room(used: int, steps: int) -> int:
    """``used`` rounded up to eighths of all steps."""
    unit = -(-steps // _ROOMS)
    return -(-used // unit) * unit


def join_pairs(split: SplitWeights, tiles: int) -> np.ndarray:
    """The packed weights that :func:`split_pairs` took, as int8."""
    vector, used = split.residual.shape[1], int(split.starts[-1])
    count, steps = prod(split.main.shape[:tiles]), prod(split.main.shape[tiles:-1])
    whole = split.main.reshape(count, steps, -1, vector).copy()
    part = np.repeat(np.arange(len(split.starts) - 1), np.diff(split.starts))
    at = (part // whole.shape[2], split.steps[:used], part % whole.shape[2])
    whole[at] += split.residual[:used]
    return whole.reshape(split.main.shape)
