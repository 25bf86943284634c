"""Shape arithmetic that type inference of many ops shares: broadcasting and axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import OperandError
from .dims import Dim, dim_broadcast, known_equal, lower_bound
from .types import Shape


def broadcast(shapes: Sequence[Shape]) -> Shape:
    """The common shape of ``shapes`` by NumPy's rules; of no shapes, that of a scalar.

    Two dims agree if they are equal or one is 1. A symbol and an int above 1 give the int, and two
    symbols that may differ give ``broadcast(a, b)``. That they agree is a condition, which
    ``InferContext.broadcast`` records. Raises ``ValueError`` if two dims can never agree.
    """
    rank = max((len(s) for s in shapes), default=0)
    out: list[Dim] = [1] * rank
    for shape in shapes:
        for i, d in enumerate(shape, rank - len(shape)):
            out[i] = broadcast_dim(out[i], d)
    return tuple(out)


def broadcast_dim(a: Dim, b: Dim) -> Dim:
    """One dim of :func:`broadcast`."""
    if a == b or b == 1:
        return a
    if a == 1:
        return b
    if isinstance(a, int) and isinstance(b, int):
        raise OperandError(f"dimensions {a} and {b} do not broadcast")
    for known, other in ((a, b), (b, a)):
        if isinstance(known, int):
            _check_reachable(other, known)
            return known
    return a if known_equal(a, b) else dim_broadcast(a, b)


def _check_reachable(symbolic: Dim, known: int) -> None:
    low = lower_bound(symbolic)
    if low is not None and low > max(known, 1):
        raise OperandError(f"dimensions {symbolic} and {known} do not broadcast")


def broadcast_known(shapes: Sequence[Shape | None]) -> Shape | None:
    """:func:`broadcast`, or None where the rank of one shape is not known."""
    known = [s for s in shapes if s is not None]
    return broadcast(known) if len(known) == len(shapes) else None


def broadcast_to(shape: Shape, target: Shape) -> Shape:
    """``target``; raises ``ValueError`` unless ``shape`` broadcasts to it in this direction."""
    if len(shape) > len(target):
        raise OperandError(f"rank {len(shape)} does not broadcast to rank {len(target)}")
    for have, want in zip(reversed(shape), reversed(target), strict=False):
        if isinstance(have, int) and have != 1 and broadcast_dim(have, want) != want:
            raise OperandError(f"dimension {have} does not broadcast to {want}")
    return target


def normalize_axis(axis: int, rank: int) -> int:
    """``axis`` counted from the front; raises ``ValueError`` outside ``[-rank, rank)``."""
    axis = int(axis)
    if not -rank <= axis < rank:
        raise OperandError(f"axis {axis} is out of range for rank {rank}")
    return axis % rank


def normalize_axes(axes: Iterable[int], rank: int) -> tuple[int, ...]:
    """Axes counted from the front, in the given order.

    Raises ``ValueError`` for one that is out of range or named twice.
    """
    out = tuple(normalize_axis(a, rank) for a in axes)
    if len(set(out)) != len(out):
        raise OperandError(f"axes {out} name an axis twice")
    return out
