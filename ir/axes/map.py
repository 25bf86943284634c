"""Axis maps: how the axes of a node's operands and results couple.

A map names *factors*: indices that run through axes of several tensors, as the letters of an einsum
do. ``MatMul`` of ``[m, k]`` by ``[k, n]`` has three; ``m`` is an axis of the first operand and of
the result, and ``k`` is summed over. An axis is described by the factors that it is made of:

- one factor: the axis is that index (``m`` above),
- a product of factors, outermost first: the channels of a grouped convolution are (group, channel
  of the group), and ``Reshape`` of ``[6, 4]`` to ``[2, 12]`` has (2, 3), (4) and (2), (3, 4),
- several pieces end to end: the joined axis of ``Concat``, each piece the axis of one operand,
- a piece that starts at an offset or takes steps: what ``Slice`` reads, what ``Pad`` surrounds,
- a piece with a reach: index ``i`` of a convolution's image stands for the window of its input.

What may be done along a factor is its :class:`Kind`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from ..dims import Dim


class Kind(Enum):
    """What the results at one index of a factor depend on."""

    MAPPED = "mapped"
    """On the operands at this index alone, in the same way for every index: picking or repeating
    indices of all operands does the same to the results, and so does dropping them where no piece
    takes steps. A result without the factor does not depend on what operands hold along it."""
    NORMALIZED = "normalized"
    """On all indices, whatever their order (softmax): permuting all operands permutes the results
    that have the factor and leaves the others as they are, up to rounding."""
    REDUCED = "reduced"
    """No result has it, and the order of its indices does not count, up to rounding."""
    WINDOWED = "windowed"
    """On the positions that its pieces reach: neighbours, whose order counts."""
    OPAQUE = "opaque"
    """Nothing is known; the axis stays whole and in order."""


class Combine(Enum):
    """How results over parts of a reduced factor make up the whole result."""

    SUM = "sum"
    PRODUCT = "product"
    MAX = "max"
    MIN = "min"
    MEAN = "mean"
    """The mean of the results, for parts of one size."""


@dataclass(frozen=True)
class Factor:
    """An index of ``size`` values that axes share.

    ``combine`` is None where parts of a reduced factor do not make up the whole. The size of a
    ``fixed`` factor is a parameter of the op, such as the rows of a block: no index may go.
    """

    size: Dim
    kind: Kind = Kind.MAPPED
    combine: Combine | None = None
    fixed: bool = False


@dataclass(frozen=True)
class Piece:
    """Positions of an axis that a product of factors (outermost first) counts.

    Index ``i`` of the product stands at ``start + i*step`` and the ``reach - 1`` positions after
    it. Positions outside of the axis are padding. No factors: one index.
    """

    factors: tuple[int, ...]
    start: Dim = 0
    step: Dim = 1
    reach: Dim = 1

    @property
    def is_plain(self) -> bool:
        """Does index ``i`` stand at position ``i``?"""
        return (self.start, self.step, self.reach) == (0, 1, 1)


Axis: TypeAlias = tuple[Piece, ...]
"""An axis: its pieces. Positions in none of them are not read, or hold what no operand decides; one
plain piece alone is all of the axis."""

Axes: TypeAlias = tuple[Axis, ...]
"""The axes of one tensor, in order."""

UNIT: Axis = (Piece(()),)
"""An axis of one element that belongs to every index: it broadcasts, or is what is left of one."""


def whole(*factors: int) -> Axis:
    """An axis that is a product of factors."""
    return (Piece(factors),)


@dataclass(frozen=True)
class AxisMap:
    """The factors of a node, and each tensor's axes in terms of them.

    ``operands`` has None for omitted inputs, ``results`` None for outputs of which nothing is
    said. ``addends`` are operands that are added to a reduced result as they are: of several parts
    of it only one may add them. ``counts`` names attributes that hold the size of a product of
    factors, such as ``group``.
    """

    factors: tuple[Factor, ...]
    operands: tuple[Axes | None, ...]
    results: tuple[Axes | None, ...]
    addends: frozenset[int] = frozenset()
    counts: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def axes_with(self, factor: int) -> Iterator[tuple[bool, int, int]]:
        """Every axis that has a factor: is it an operand's, which tensor, which axis."""
        for is_operand, tensors in ((True, self.operands), (False, self.results)):
            for i, axes in enumerate(tensors):
                for a, axis in enumerate(axes or ()):
                    if any(factor in piece.factors for piece in axis):
                        yield is_operand, i, a

    def size(self, piece: Piece) -> Dim:
        """How many indices a piece counts."""
        total: Dim = 1
        for f in piece.factors:
            total = total * self.factors[f].size
        return total


__all__ = ["UNIT", "Axes", "Axis", "AxisMap", "Combine", "Factor", "Kind", "Piece", "whole"]
