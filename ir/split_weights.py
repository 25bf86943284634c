"""Packed weights whose steps, or some of them, stand in a list.

**Split weights**, for dot products that sum pairs in too few bits. As weights are constants, it is
known which pairs of products could saturate (:mod:`.pairs`): some 15 % in trained networks. A step
of the reduction with such a pair is done twice, by halves of the weights, and the second halves are
listed. Weights that graphkiln quantizes itself may be chosen so that no pair can saturate.

**Block-sparse weights**, most of whose steps are zero for all lanes of a vector. All other steps
are listed, and nothing else is stored or multiplied.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np

from .pairs import saturating

_ROOMS = 8
"""The list has room for so many eighths of all steps, so that layers of one shape, which differ in
how many steps they list, still have kernels in common."""


@dataclass(frozen=True)
class SplitWeights:
    """Packed weights as ``main + residual``.

    ``main`` is shaped as the packed weights ``[*tiles, *steps, t*d]`` (see :mod:`.packing`), or has
    no columns where all steps are listed. The listed ones are those of each vector of ``L`` of the
    ``t`` columns: ``residual`` is ``[E, L*d]``, and ``steps`` ``[E]`` (int32) are the numbers of
    their steps in the order of memory. Vector ``v`` of tile ``i`` has those from ``starts[i*V +
    v]`` to ``starts[i*V + v + 1]`` (int32, ``V = t/L``). Entries past the last start are zero. A
    step that is listed twice counts twice.
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
    halves = _halves(packed, limit)
    if halves is None:
        return None
    main, rest = halves
    return SplitWeights(main, *_listed([_by_vector(rest, tiles, vector)]))


def list_steps(
    packed: np.ndarray, tiles: int, vector: int, limit: int | None = None
) -> SplitWeights:
    """List all steps that are not zero; the main part has no columns.

    ``packed``, ``tiles`` and ``vector`` are as in :func:`split_pairs`. With a ``limit``, int8
    weights are split where neighbours sum to more, and such a step is listed twice.
    """
    halves = None if limit is None else _halves(packed, limit)
    parts = [packed] if halves is None else halves
    lists = _listed([_by_vector(part, tiles, vector) for part in parts])
    return SplitWeights(np.zeros((*packed.shape[:-1], 0), packed.dtype), *lists)


def share_of_steps(packed: np.ndarray) -> float:
    """The share of steps with a weight that is not zero, for tiles of one vector; 0 if empty."""
    used = packed.any(axis=-1)
    return float(used.mean()) if used.size else 0.0


def _halves(packed: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray] | None:
    """int8 weights as a sum of two in which neighbours sum to at most ``limit``; None where they
    do already.
    """
    if limit < 128:
        raise ValueError(f"two halves of int8 may sum to 128, beyond the limit of {limit}")
    pairs = packed.reshape(-1, 2)
    beyond = saturating(pairs, limit)
    if not beyond.any():
        return None
    rest = np.where(beyond[:, None], pairs - (pairs >> 1), 0).astype(np.int8)
    return (pairs - rest).reshape(packed.shape), rest.reshape(packed.shape)


def _by_vector(packed: np.ndarray, tiles: int, vector: int) -> np.ndarray:
    """``[tile, vector, step, ..]``, the order of the list."""
    count, steps = prod(packed.shape[:tiles]), prod(packed.shape[tiles:-1])
    return packed.reshape(count, steps, -1, vector).swapaxes(1, 2)


def _listed(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The residual, its steps and its starts: for each vector the steps of all ``parts``."""
    joined = np.concatenate(parts, axis=2)
    used = joined.any(axis=-1)
    chosen = np.nonzero(used)
    size, steps = parts[0][..., 0].size, parts[0].shape[2]
    room, vector = _room(len(chosen[0]), size), joined.shape[-1]
    residual, numbers = np.zeros((room, vector), joined.dtype), np.zeros(room, np.int32)
    residual[: len(chosen[0])], numbers[: len(chosen[0])] = joined[chosen], chosen[2] % steps
    starts = np.concatenate([[0], np.cumsum(used.sum(axis=-1).reshape(-1))]).astype(np.int32)
    return residual, numbers, starts


def _room(used: int, steps: int) -> int:
    """``used`` rounded up to eighths of all steps; at least one, since code reads its shape."""
    unit = max(1, -(-steps // _ROOMS))
    return max(1, -(-used // unit)) * unit


def join_pairs(split: SplitWeights, tiles: int) -> np.ndarray:
    """The packed weights that :func:`split_pairs` or :func:`list_steps` took."""
    vector, used = split.residual.shape[1], int(split.starts[-1])
    count, steps = prod(split.main.shape[:tiles]), prod(split.main.shape[tiles:-1])
    vectors = (len(split.starts) - 1) // count
    if split.main.shape[-1]:
        whole = split.main.reshape(count, steps, vectors, vector).copy()
    else:
        whole = np.zeros((count, steps, vectors, vector), split.residual.dtype)
    part = np.repeat(np.arange(len(split.starts) - 1), np.diff(split.starts))
    at = (part // vectors, split.steps[:used], part % vectors)
    np.add.at(whole, at, split.residual[:used])
    return whole.reshape(*split.main.shape[:-1], vectors * vector)
