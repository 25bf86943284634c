"""Weights no two of which can saturate the sum of a pair of products (:mod:`...ir.pairs`).

For the channels of weights ``w`` that a target sums in pairs, up to codes that sum to ``L``:

    s = max(max |w| / 127, max |w0 + w1| / L),    q = round(w / s)

Rounding may take a pair beyond ``L`` all the same. Then its codes are the nearest ones on the line

    q0 + q1 = +-L        q0 = round((w0 / s - w1 / s +- L) / 2)

Scales become up to 1.98 times as large, in trained networks 1.2 to 1.5 times, which is 2 to 3 dB;
weights of 7 bits, the usual remedy, lose 6 dB.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum

import numpy as np

from ...ir.axes.query import axes_of, factors_of
from ...ir.choices import DIRECT
from ...ir.graph import Graph, Node
from ...ir.hardware import Hardware
from ...ir.layer_work import layer_work
from ...ir.pairs import from_pairs, pairs_along, saturating


class Pairs(str, Enum):
    """What becomes of pairs of weights whose products would saturate.

    ``safe``: weights are quantized so that there are none, with larger scales where that takes it.
    ``split``: weights stay the nearest codes, and such pairs are multiplied in two halves.
    """

    SAFE = "safe"
    SPLIT = "split"


@dataclass(frozen=True)
class Pairing:
    """Neighbours along ``axis`` of weights are pairs, whose codes may sum to ``limit``."""

    axis: int
    limit: int

    def sums(self, weights: np.ndarray) -> np.ndarray:
        """The magnitude of each pair's sum, with the axis of its weights: ``[.., C/2, ..]``."""
        pairs = pairs_along(weights.astype(np.float64), self.axis)
        return np.moveaxis(np.abs(pairs.sum(axis=-1)), -1, self.axis)

    def rounded(self, exact: np.ndarray, largest: int) -> np.ndarray:
        """Codes for weights as multiples of their scale: the nearest ones from ``-largest`` to
        ``largest``, and for pairs beyond the limit the nearest ones at the limit.
        """
        wanted = pairs_along(exact, self.axis)
        codes = np.clip(np.round(wanted), -largest, largest)
        beyond = saturating(codes, self.limit)
        first, second = wanted[beyond].T
        bound = np.copysign(self.limit, first + second)
        nearest = np.round((first - second + bound) / 2)
        codes[beyond] = np.stack([nearest, bound - nearest], axis=-1)
        return from_pairs(codes, self.axis, exact.shape[self.axis])


@dataclass(frozen=True)
class RowPairs:
    """The pairs of a matrix ``[K, N]`` whose rows are channels by so many ``positions``."""

    positions: int
    limit: int

    def bounds(self, codes: np.ndarray, row: int, largest: int) -> tuple[np.ndarray, np.ndarray]:
        """The least and the most that codes ``[N]`` of ``row`` may be beside those that are there,
        which are 0 as long as they are not chosen.
        """
        channel, position = divmod(row, self.positions)
        other = (channel ^ 1) * self.positions + position
        beside = codes[other] if other < len(codes) else np.zeros(codes.shape[1])
        return np.maximum(-largest, -self.limit - beside), np.minimum(largest, self.limit - beside)

    def rounded(self, exact: np.ndarray, largest: int) -> np.ndarray:
        """:meth:`Pairing.rounded` for the matrix."""
        channels = exact.reshape(-1, self.positions * exact.shape[1])
        return Pairing(0, self.limit).rounded(channels, largest).reshape(exact.shape)


def pairings(graph: Graph, nodes: Iterable[Node], hardware: Hardware) -> dict[str, Pairing]:
    """The pairs of each product by name, for those whose kernels sum products in pairs."""
    found = {node.name: pairing(graph, node, hardware) for node in nodes}
    return {name: pairs for name, pairs in found.items() if pairs is not None}


def pairing(graph: Graph, node: Node, hardware: Hardware) -> Pairing | None:
    """The pairs of a product's weights; None where the target's kernel for it has none.

    Convolutions by Winograd's algorithm have none: they multiply more bits.
    """
    layouts, axis = hardware.layouts, _summed_axis(graph, node)
    if layouts is None or layouts.pair_limit is None or axis is None:
        return None
    work = layer_work(graph, node)
    if work is not None and layouts.choose(work.in_bytes().shape).algorithm != DIRECT:
        return None
    return Pairing(axis, layouts.pair_limit)


def _summed_axis(graph: Graph, node: Node) -> int | None:
    """The axis of the weights, input 1, that is the channels of the data and is summed over."""
    axes = axes_of(graph, node)
    if axes is None or len(axes.operands) < 2:
        return None
    data, weights = ({f for a in axes.operands[i] or () for f in factors_of(a)} for i in (0, 1))
    made = {f for result in axes.results for a in result or () for f in factors_of(a)}
    summed = (data & weights) - made
    found = [a for a, axis in enumerate(axes.operands[1] or ()) if summed & {*factors_of(axis)}]
    return found[0] if len(found) == 1 else None


__all__ = ["Pairing", "Pairs", "RowPairs", "pairing", "pairings"]
