"""Axis maps of views: factors that are common to the sizes of both shapes."""

from __future__ import annotations

from ..dims import Dim, known_equal
from ..types import Shape
from .build import Builder, rule
from .map import Axis, AxisMap, Kind, Piece


@rule
def view(b: Builder) -> AxisMap | None:
    """The same elements in order in another shape: axes are merged, split, added or dropped.

    ``[6, 4]`` to ``[2, 12]`` is ``[(2, 3), 4]`` to ``[2, (3, 4)]``. Where neighbouring sizes share
    no factors, these axes are opaque.
    """
    before, after = _Stretch(b, b.shape()), _Stretch(b, b.out())
    _pair(b, before, after)
    b.take(0, before.axes())
    b.give(after.axes())
    return b.build()


class _Stretch:
    """The axes of one shape, with the factors found so far, from the outermost and innermost on."""

    def __init__(self, b: Builder, shape: Shape) -> None:
        self.shape = shape
        self.outer: list[list[int]] = [[] for _ in shape]
        self.inner: list[list[int]] = [[] for _ in shape]
        self.rest: list[Dim] = list(shape)
        self._b = b

    def open(self) -> list[int]:
        """The axes with a rest of their size that has no factors yet."""
        return [i for i, d in enumerate(self.rest) if d != 1]

    def axes(self) -> list[Axis]:
        """Make the rest of each size an opaque factor."""
        out: list[Axis] = []
        for outer, rest, inner in zip(self.outer, self.rest, self.inner, strict=True):
            middle = [] if rest == 1 else [self._b.factor(rest, Kind.OPAQUE)]
            out.append((Piece((*outer, *middle, *inner)),))
        return out


def _pair(b: Builder, before: _Stretch, after: _Stretch) -> None:
    """Find common factors from the outermost axis on, then from the innermost."""
    if any(d == 0 for d in (*before.shape, *after.shape)):
        return
    for from_inside in (False, True):
        while (left := before.open()) and (right := after.open()):
            i, j = (left[-1], right[-1]) if from_inside else (left[0], right[0])
            common = _common(before.rest[i], after.rest[j])
            if common is None:
                break
            f = b.factor(common)
            for side, at in ((before, i), (after, j)):
                side.rest[at] = 1 if known_equal(side.rest[at], common) else side.rest[at] // common
                if from_inside:
                    side.inner[at].insert(0, f)
                else:
                    side.outer[at].append(f)


def _common(a: Dim, b: Dim) -> Dim | None:
    """The lesser of two sizes if it divides the other, else None."""
    if known_equal(a, b):
        return a
    for small, large in ((a, b), (b, a)):
        if known_equal(large // small * small, large) and not known_equal(large // small, 0):
            return small
    return None


__all__ = ["view"]
