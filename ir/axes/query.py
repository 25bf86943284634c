"""Queries of axis maps: what dropping, cutting or reordering one axis means for other tensors."""

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
    """The axis map of a node; None if nothing is known.

    Ops with the trait ``elementwise`` need no rule of their own.
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
    """The indices of factors to which exactly the positions ``taken`` of an axis belong.

    For an axis of one factor, these are the positions. For a product of factors, they are indices
    of one factor, with all indices of the others: of (group, channel) with 2 channels in a group,
    positions 2 and 3 are group 1. The result is None for positions that are no such set, or that
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
    """The positions that all axes lose if axis ``at`` loses the positions ``taken``, itself
    included.

    None if it cannot lose just these: they are no whole indices of a factor, or the factor's kind
    does not allow it. Dropping indices of a normalized or reduced factor changes what the node
    computes, which structured pruning intends. Attributes that depend on the number of indices are
    in :attr:`AxisMap.counts`. Shapes and sizes in attributes or inputs (``Reshape``, ``Split``,
    ``Slice``) are left to the caller.
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
    """Are indices of a factor independent positions, so that some of them may be dropped?"""
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
    """The axes of an operand that have a factor of this kind, such as those that are reduced."""
    return tuple(
        a
        for a, axis in enumerate(axes.operands[operand] or ())
        if any(axes.factors[f].kind is kind for f in factors_of(axis))
    )


def reduced_axes(graph: Graph, node: Node) -> tuple[int, ...] | None:
    """The axes of its first input that a node reduces, ascending; None if they are not known."""
    found = spec(node.key)
    if found is not None and isinstance(found.axes, Reduction):
        return found.axes.reduced_axes(graph, node)
    axes = axes_of(graph, node)
    return None if axes is None else axes_of_kind(axes, Kind.REDUCED)


def factors_of(axis: Axis) -> tuple[int, ...]:
    """The factors of all pieces of an axis."""
    return tuple(f for piece in axis for f in piece.factors)


def filter_axes(axes: AxisMap, weights: int = 1, data: int = 0) -> tuple[int, ...]:
    """The axes of weights that results have, but the data have not: filters, columns."""
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
    """A node with one axis cut into equal parts, one for each of several devices.

    ``cut`` are the axes that are cut with it, of operands and of results. The results in
    ``partial`` must be combined by ``combine``. Each device has other operands as a whole, except
    for those in ``once``, which only one device adds. Attributes in :attr:`AxisMap.counts` become
    smaller.
    """

    cut: tuple[AxisOf, ...]
    partial: tuple[int, ...] = ()
    combine: Combine | None = None
    once: frozenset[int] = frozenset()


def cut_along(axes: AxisMap, at: AxisOf) -> Cut | None:
    """What cutting an axis into equal parts means for the node; None if it cannot be cut.

    The outermost factor of the axis is cut, so it must be the outermost of every other axis that
    has it, too. Of (group, channel) groups can be cut, of (gate, element) whole gates only.
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
    """Does each result depend only on the operands at its index, after broadcasting?

    Then axes may be permuted, if it is done in all operands and results: a transpose can move past
    the node.
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
    """Is the node elementwise, with operands that broadcast by NumPy's rules?

    Then no attribute names an axis, so views and transposes of its operands may move behind it. The
    trait alone is not enough: parameters of some ops are along another axis than the last.
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
