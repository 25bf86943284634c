"""Axis maps: how the axes of a node's operands and results couple.

A map names *factors*: indices that run through axes of several tensors, as the letters of an einsum
do. ``MatMul`` of ``[m, k]`` by ``[k, n]`` has three; ``m`` is an axis of the first operand and of
the result, and ``k`` is summed over. An axis is described by the factors that it is made of:

- one factor: the axis is that index (``m`` above),
- a product of factors, outermost first: the channels of a grouped convolution are (group, channel
  of the group), and ``Reshape`` of ``[6, 4]`` to ``[2, 12]`` has (2, 3), (4) and (2), (3, 4),
- several pieces one after the other: the result's axis of ``Concat`` has one for each operand,
- a piece that starts at an offset or takes steps: what ``Slice`` reads, what ``Pad`` surrounds,
- a piece with a reach: index ``i`` of a convolution's output stands for the window in its input.

The :class:`Kind` of a factor says what may be done along it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from ..dims import Dim


class Kind(Enum):
    """What the results at one index of a factor depend on, and so what may be done along it."""

    MAPPED = "mapped"
    """On the operands at this index alone, in the same way for every index (rows of a product).
    Picking or repeating indices of all operands does the same to the results, and so does dropping
    them if no piece takes steps. A result without the factor does not depend on elements of it."""
    NORMALIZED = "normalized"
    """On all indices, whatever their order (softmax). Permuting all operands permutes the results
    that have the factor and leaves the others as they are, up to rounding."""
    REDUCED = "reduced"
    """On all indices, as no result has the factor; their order does not count, up to rounding."""
    WINDOWED = "windowed"
    """On neighbouring positions, those that its pieces reach, whose order counts."""
    OPAQUE = "opaque"
    """Nothing is known: the axis must stay whole and in order."""


class Combine(Enum):
    """How the whole result follows from results over parts of a reduced factor."""

    SUM = "sum"
    PRODUCT = "product"
    MAX = "max"
    MIN = "min"
    MEAN = "mean"
    """The mean of the results, for parts of equal size."""


@dataclass(frozen=True)
class Factor:
    """An index of ``size`` values that axes share.

    ``combine`` is None if the whole result does not follow from results over parts of a reduced
    factor. The size of a ``fixed`` factor is a parameter of the op, such as the rows of a block, so
    no index may be dropped. Of a ``summed`` factor, an index takes part in what the results at
    other indices are (or in results without the factor) by sums of products only: without it they
    are what they would be if one operand of each product were 0 there.
    """

    size: Dim
    kind: Kind = Kind.MAPPED
    combine: Combine | None = None
    fixed: bool = False
    summed: bool = False

    @property
    def adds(self) -> bool:
        """Does dropping an index do the same as zeros there?"""
        return self.summed or self.combine is Combine.SUM


@dataclass(frozen=True)
class Piece:
    """Positions of an axis, which the indices of a product of factors (outermost first) stand for.

    Index ``i`` of the product is position ``start + i*step``, with the ``reach - 1`` positions
    after it. Positions outside of the axis are padding. Without factors there is one index.
    """

    factors: tuple[int, ...]
    start: Dim = 0
    step: Dim = 1
    reach: Dim = 1

    @property
    def is_plain(self) -> bool:
        """Is index ``i`` position ``i``?"""
        return (self.start, self.step, self.reach) == (0, 1, 1)


Axis: TypeAlias = tuple[Piece, ...]
"""An axis: its pieces. Positions in none of them are not read, or do not depend on an operand. One
plain piece alone is all of the axis."""

Axes: TypeAlias = tuple[Axis, ...]
"""The axes of one tensor, in order."""

UNIT: Axis = (Piece(()),)
"""An axis of one element, which belongs to every index: it broadcasts, or was reduced."""


def whole(*factors: int) -> Axis:
    """An axis that is a product of factors."""
    return (Piece(factors),)


@dataclass(frozen=True)
class AxisMap:
    """The factors of a node, and each tensor's axes in terms of them.

    ``operands`` has None for omitted inputs, ``results`` None for outputs of which nothing is
    known. ``addends`` are operands that are added to a reduced result, such as a bias: if the
    result is computed in parts, only one of these may add them. ``counts`` maps attributes that are
    the size of a product of factors, such as ``group``, to these.
    """

    factors: tuple[Factor, ...]
    operands: tuple[Axes | None, ...]
    results: tuple[Axes | None, ...]
    addends: frozenset[int] = frozenset()
    counts: tuple[tuple[str, tuple[int, ...]], ...] = ()

    def axes_with(self, factor: int) -> Iterator[tuple[bool, int, int]]:
        """Every axis that has a factor, as (is it an operand's, number of the tensor, axis)."""
        for is_operand, tensors in ((True, self.operands), (False, self.results)):
            for i, axes in enumerate(tensors):
                for a, axis in enumerate(axes or ()):
                    if any(factor in piece.factors for piece in axis):
                        yield is_operand, i, a

    def size(self, piece: Piece) -> Dim:
        """The number of indices of a piece."""
        total: Dim = 1
        for f in piece.factors:
            total = total * self.factors[f].size
        return total


__all__ = ["UNIT", "Axes", "Axis", "AxisMap", "Combine", "Factor", "Kind", "Piece", "whole"]
