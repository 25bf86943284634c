"""What axis maps answer: how indices, cuts and orders of one axis carry over to other tensors."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from ..graph import Graph, Node
from ..registry import has_trait, spec
from ..traits import Trait
from .map import UNIT, Axes, Axis, AxisMap, Combine, Kind, Piece
from .pointwise import elementwise
from .reduce import Reduction


def axes_of(graph: Graph, node: Node) -> AxisMap | None:
    """The axis map of a node; None where nothing is known.

    Ops of the trait ``elementwise`` need no rule of their own.
    """
    found = spec(node.key)
    describe = None if found is None else found.axes
    if describe is None:
        return elementwise(graph, node) if has_trait(node, Trait.ELEMENTWISE) else None
    return describe(graph, node)


# ---- indices -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class AxisOf:
    """Axis ``axis`` of operand or result ``tensor``."""

    tensor: int
    axis: int
    is_operand: bool = True


def piece_grid(axes: AxisMap, piece: Piece) -> np.ndarray:
    """The positions at which the indices of a piece start, an axis for each of its factors.

    Raises ``TypeError`` for sizes that are not ints.
    """
    sizes = []
    for f in piece.factors:
        size = axes.factors[f].size
        if not isinstance(size, int):
            raise TypeError(f"a factor of size {size} has no fixed positions")
        sizes.append(size)
    if not isinstance(piece.start, int) or not isinstance(piece.step, int):
        raise TypeError(f"a piece that starts at {piece.start} has no fixed positions")
    return piece.start + piece.step * np.arange(prod(sizes)).reshape(sizes)


def positions(axes: AxisMap, axis: Axis, factor: int, indices: Iterable[int]) -> tuple[int, ...]:
    """The positions of an axis that belong to ``indices`` of a factor, ascending."""
    wanted, found = list(indices), []
    for piece in axis:
        if factor in piece.factors:
            grid = piece_grid(axes, piece)
            found.append(np.take(grid, wanted, axis=piece.factors.index(factor)).reshape(-1))
    return tuple(sorted(int(p) for p in np.concatenate(found))) if found else ()


def factor_indices(axes: AxisMap, axis: Axis, taken: Iterable[int]) -> dict[int, set[int]] | None:
    """Indices of factors that make up exactly the positions ``taken`` of an axis.

    A position of one factor has its index. Positions of a product are those of indices of one of
    its factors, all others whole: a set that is no such product gives None, as do positions that
    belong to no piece.
    """
    rest, found = set(taken), {}
    for piece in axis:
        grid = piece_grid(axes, piece)
        mine = rest & set(grid.reshape(-1).tolist())
        if not mine:
            continue
        for place, f in enumerate(piece.factors):
            hit = np.isin(grid, list(mine))
            others = tuple(i for i in range(grid.ndim) if i != place)
            if bool((hit.any(axis=others) == hit.all(axis=others)).all()):
                found[f] = {int(i) for i in np.flatnonzero(hit.any(axis=others))}
                break
        else:
            return None
        rest -= mine
    return None if rest else found


def dropped(
    axes: AxisMap, at: AxisOf, taken: Sequence[int]
) -> dict[AxisOf, tuple[int, ...]] | None:
    """What other axes lose where an axis loses the positions ``taken``; itself included.

    None where the axis cannot lose them alone: they are no whole indices of a factor, or the order
    or number of the factor's indices counts in an unknown way. Dropping indices of a normalized or
    reduced factor leaves a node that computes something else, as structured pruning means it to.
    Attributes that count indices are in :attr:`AxisMap.counts`; shapes and sizes that a node has
    as attributes or inputs (``Reshape``, ``Split``, ``Slice``) are for the caller to mend.
    """
    indices = factor_indices(axes, _axis(axes, at), taken)
    if indices is None or not all(_may_lose(axes, f) for f in indices):
        return None
    lost: dict[AxisOf, set[int]] = {}
    for f, gone in indices.items():
        for is_operand, tensor, a in axes.axes_with(f):
            place = AxisOf(tensor, a, is_operand)
            lost.setdefault(place, set()).update(positions(axes, _axis(axes, place), f, gone))
    return {place: tuple(sorted(where)) for place, where in lost.items()}


def _may_lose(axes: AxisMap, f: int) -> bool:
    """Do indices of a factor stand side by side, so that some may go?"""
    factor = axes.factors[f]
    if factor.fixed or factor.kind in (Kind.OPAQUE, Kind.WINDOWED):
        return False
    places = [AxisOf(tensor, a, is_operand) for is_operand, tensor, a in axes.axes_with(f)]
    pieces = [p for place in places for p in _axis(axes, place) if f in p.factors]
    return all(p.step == 1 for p in pieces)


def _axis(axes: AxisMap, at: AxisOf) -> Axis:
    tensors = axes.operands if at.is_operand else axes.results
    found = tensors[at.tensor]
    if found is None:
        raise ValueError(f"the map says nothing of tensor {at.tensor}")
    return found[at.axis]


# ---- roles of axes -------------------------------------------------------------------------------


def axes_of_kind(axes: AxisMap, kind: Kind, operand: int = 0) -> tuple[int, ...]:
    """The axes of an operand that have a factor of this kind: those that are reduced, say."""
    return tuple(
        a
        for a, axis in enumerate(axes.operands[operand] or ())
        if any(axes.factors[f].kind is kind for f in factors_of(axis))
    )


def reduced_axes(graph: Graph, node: Node) -> tuple[int, ...] | None:
    """The axes of its first input that a node reduces, ascending; None where they are unknown."""
    found = spec(node.key)
    if found is not None and isinstance(found.axes, Reduction):
        return found.axes.reduced_axes(graph, node)
    axes = axes_of(graph, node)
    return None if axes is None else axes_of_kind(axes, Kind.REDUCED)


def factors_of(axis: Axis) -> tuple[int, ...]:
    """The factors of all pieces of an axis."""
    return tuple(f for piece in axis for f in piece.factors)


def filter_axes(axes: AxisMap, weights: int = 1, data: int = 0) -> tuple[int, ...]:
    """The axes of weights that results have and the data have not: filters, columns."""
    given = {f for axis in axes.operands[data] or () for f in factors_of(axis)}
    made = {f for result in axes.results for axis in result or () for f in factors_of(axis)}
    return tuple(
        a
        for a, axis in enumerate(axes.operands[weights] or ())
        if (made - given).intersection(factors_of(axis))
    )


# ---- parts ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """A node of which one axis is cut into equal runs, one for each of several devices.

    ``cut`` are the axes that are cut with it: operands that have to be, results that are then. The
    results in ``partial`` are to be combined by ``combine``. Other operands each device has whole,
    but ``once``, which one of them alone adds. Attributes in :attr:`AxisMap.counts` then
    count less.
    """

    cut: tuple[AxisOf, ...]
    partial: tuple[int, ...] = ()
    combine: Combine | None = None
    once: frozenset[int] = frozenset()


def cut_along(axes: AxisMap, at: AxisOf) -> Cut | None:
    """What cutting an axis into equal runs means for the node; None where it cannot be cut.

    The outermost factor of the axis is cut. So it must be the outermost of every other axis that
    has it: of (group, channel) groups can be cut, of (gate, element) only whole gates.
    """
    (piece, *more) = _axis(axes, at)
    if more or not piece.is_plain or not piece.factors:
        return None
    f = piece.factors[0]
    factor = axes.factors[f]
    summed = factor.kind is Kind.REDUCED and factor.combine is not None
    if factor.fixed or factor.kind is not Kind.MAPPED and not summed:
        return None
    if any(axis is None for axis in axes.results):
        return None
    places = [AxisOf(tensor, a, is_operand) for is_operand, tensor, a in axes.axes_with(f)]
    for place in places:
        (first, *others) = _axis(axes, place)
        if others or not first.is_plain or first.factors[0] != f:
            return None
    if not summed:
        return Cut(tuple(places))
    return Cut(tuple(places), tuple(range(len(axes.results))), factor.combine, axes.addends)


# ---- orders of axes ------------------------------------------------------------------------------


def is_pointwise(axes: AxisMap) -> bool:
    """Is every index of the results made of the same index of the operands, which broadcast?

    Then axes may change places, as long as they do in all operands and results: a transpose moves
    past the node.
    """
    if not axes.results or any(r is None for r in axes.results):
        return False
    first = axes.results[0]
    assert first is not None
    if any(result != first for result in axes.results):
        return False
    if not all(_single(axes, axis) for axis in first):
        return False
    return all(operand is None or _broadcasts(operand, first) for operand in axes.operands)


def broadcasts(graph: Graph, node: Node) -> bool:
    """Is a node of an elementwise op, whose operands broadcast from the last axis on?

    Such a node has no axis in its attributes, so views and transposes of its operands may as well
    follow it. A trait alone would let an op pass whose operands lie along other axes.
    """
    free = has_trait(node, Trait.ELEMENTWISE) and not has_trait(node, Trait.FIXED_RANKS)
    axes = axes_of(graph, node) if free else None
    return axes is not None and is_pointwise(axes)


def _single(axes: AxisMap, axis: Axis) -> bool:
    """Is an axis one mapped factor?"""
    (piece, *more) = axis
    if more or not piece.is_plain or len(piece.factors) != 1:
        return False
    return axes.factors[piece.factors[0]].kind is Kind.MAPPED


def _broadcasts(operand: Axes, result: Axes) -> bool:
    """Does an operand broadcast to the axes of the result, counted from the last?"""
    lead = len(operand) - len(result)
    if any(axis != UNIT for axis in operand[: max(lead, 0)]):
        return False
    last = operand[max(lead, 0) :]
    return all(a in (UNIT, b) for a, b in zip(last, result[len(result) - len(last) :], strict=True))


__all__ = [
    "AxisOf", "Cut", "axes_of", "axes_of_kind", "broadcasts", "cut_along", "dropped",
    "factor_indices", "factors_of", "filter_axes", "is_pointwise", "piece_grid", "positions",
    "reduced_axes",
]  # fmt: skip
