"""Reductions over some axes of an iteration space, vectorised without fast-math.

LLVM may not reorder a sum of floats, so it cannot vectorise one by itself, and the code is written
in lanes. Where the last axis is reduced, each row has a vector of partial results, which are
combined at the end. Where it is kept, neighbouring columns are reduced at once, one in each lane.
Kernels are written once for both cases, for a :class:`Group`::

    def program(g):
        total = g.fold(lambda at: x[at], SUM, "float32")
        g.each(lambda at: y.store(at, x[at] - total() / n))

    for_groups(b, x.shape, axes, program)
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeAlias

from .builder import Builder, Expr
from .extents import as_int, index, product, static_product
from .numeric import cast
from .partial import (
    MAX,
    MAX_NUMBER,
    MIN,
    PRODUCT,
    SUM,
    Monoid,
    Partial,
    ceil_div,
    column_lanes,
    is_nan,
    lowest,
    row_lanes,
    split,
)

At: TypeAlias = "tuple[Expr, ...]"
Load: TypeAlias = "Callable[[At], Expr]"
Held: TypeAlias = "Callable[[], Expr]"
Program: TypeAlias = "Callable[[Group], None]"


class Group(ABC):
    """Elements that are reduced together: all indices of ``axes``, at one index of the rest.

    Functions given to its methods get the index of an element in the whole space; values that
    :meth:`fold` and :meth:`hold` return are read by calling them inside such functions.
    """

    def __init__(self, b: Builder, shape: Sequence[Any], axes: Sequence[int], at: At) -> None:
        self.b = b
        self.axes = tuple(axes)
        self.extents = tuple(shape[a] for a in axes)
        self.kept = tuple(i for i in range(len(shape)) if i not in axes)
        self._rank = len(shape)
        self._at = at

    @property
    def at(self) -> At:
        """The group's index among the kept axes."""
        return self._at

    def place(self, reduced: At) -> At:
        """The full index for an index of the reduced axes."""
        full: list[Expr] = [index(0)] * self._rank
        for a, i in zip(self.axes, reduced, strict=True):
            full[a] = i
        for a, i in zip(self.kept, self.at, strict=True):
            full[a] = i
        return tuple(full)

    @abstractmethod
    def fold(self, load: Load, monoid: Monoid, dtype: str) -> Held:
        """Combine ``load(at)`` over the group in TVM dtype ``dtype``."""

    @abstractmethod
    def hold(self, value: Callable[[], Expr], dtype: str) -> Held:
        """A scalar of the group of TVM dtype ``dtype``, computed once."""

    @abstractmethod
    def each(self, body: Callable[[At], None]) -> None:
        """Run ``body(at)`` for every element of the group."""

    @abstractmethod
    def once(self, body: Callable[[At], None]) -> None:
        """Run ``body(kept)`` for the group, with its index among the kept axes."""


class RowGroup(Group):
    """One group. Its last axis is cut into lanes, if that is the last axis of the space, too."""

    def __init__(
        self, b: Builder, shape: Sequence[Any], axes: Sequence[int], at: At, vector_bytes: int
    ) -> None:
        super().__init__(b, shape, axes, at)
        contiguous = bool(axes) and axes[-1] == len(shape) - 1
        self._vector_bytes = vector_bytes if contiguous else 0

    def fold(self, load: Load, monoid: Monoid, dtype: str) -> Held:
        if not self.extents:
            return self.hold(lambda: load(self.place(())), dtype)
        *outer, n = self.extents
        lanes = 1 if monoid.ordered else row_lanes(n, dtype, self._vector_bytes)
        whole, tail = split(n, lanes)
        total = Partial(self.b, monoid, dtype, lanes)
        rest = total if lanes == 1 else Partial(self.b, monoid, dtype, 1)
        with self.b.grid(*outer) as r:
            total.fold(whole, lambda block, lane: load(self.place((*r, block * lanes + lane))))
            if rest is not total and as_int(tail) != 0:
                done = index(whole) * lanes
                rest.fold(tail, lambda i, _lane: load(self.place((*r, done + i))))
        result = total.merged()
        if rest is not total:
            result = monoid.combine(result, rest[index(0)])
        return self.hold(lambda: result, dtype)

    def hold(self, value: Callable[[], Expr], dtype: str) -> Held:
        found = self.b.let(cast(value(), dtype))
        return lambda: found

    def each(self, body: Callable[[At], None]) -> None:
        with self.b.grid(*self.extents) as r:
            body(self.place(r))

    def once(self, body: Callable[[At], None]) -> None:
        body(self.at)


class ColumnGroup(Group):
    """Neighbouring groups along the last axis, which is kept: one lane for each of them."""

    def __init__(
        self, b: Builder, shape: Sequence[Any], axes: Sequence[int], at: At, lanes: int
    ) -> None:
        super().__init__(b, shape, axes, at)
        self._lanes = lanes
        self._lane: Expr = index(0)

    @property
    def at(self) -> At:
        *lead, start = self._at
        return (*lead, start + self._lane)

    @contextmanager
    def _in_lane(self, lane: Expr) -> Iterator[None]:
        self._lane = lane
        yield
        self._lane = index(0)

    @contextmanager
    def _each_lane(self) -> Iterator[Expr]:
        with self.b.lanes(self._lanes) as lane, self._in_lane(lane):
            yield lane

    def fold(self, load: Load, monoid: Monoid, dtype: str) -> Held:
        *outer, n = self.extents
        total = Partial(self.b, monoid, dtype, self._lanes)
        with self.b.grid(*outer) as r:

            def value(i: Expr, lane: Expr, r: At = r) -> Expr:
                with self._in_lane(lane):
                    return load(self.place((*r, i)))

            total.fold(n, value)
        return lambda: total[self._lane]

    def hold(self, value: Callable[[], Expr], dtype: str) -> Held:
        held = self.b.local((self._lanes,), dtype)
        with self._each_lane() as lane:
            held.store((lane,), value())
        return lambda: held[self._lane]

    def each(self, body: Callable[[At], None]) -> None:
        with self.b.grid(*self.extents) as r, self._each_lane():
            body(self.place(r))

    def once(self, body: Callable[[At], None]) -> None:
        with self._each_lane():
            body(self.at)


def for_groups(
    b: Builder, shape: Sequence[Any], axes: Sequence[int], program: Program, dtype: str,
    cost: int = 1,
) -> None:  # fmt: skip
    """Run ``program(group)`` for every group of the space, in parallel.

    ``axes`` ascend; ``dtype`` is the TVM dtype of most folds, which sets the number of lanes;
    ``cost`` estimates the scalar operations for one element.
    """
    kept = [i for i in range(len(shape)) if i not in axes]
    lanes = column_lanes(shape, kept, dtype, b.loops.vector_bytes)
    work = cost * (static_product([shape[a] for a in axes]) or 1_000)
    if lanes > 1:
        _for_columns(b, shape, axes, kept, program, lanes, work)
        return

    def body(at: At) -> None:
        program(RowGroup(b, shape, axes, at, b.loops.vector_bytes))

    b.nest([shape[i] for i in kept], body, work, sequential_last=True)


def _for_columns(
    b: Builder, shape: Sequence[Any], axes: Sequence[int], kept: Sequence[int], program: Program,
    lanes: int, work: int,
) -> None:  # fmt: skip
    """Run ``program`` for tiles of ``lanes`` columns, and for single columns that are left over."""
    *lead, last = [shape[i] for i in kept]
    whole, tail = split(last, lanes)

    def body(at: At) -> None:
        start = at[-1] * lanes
        if as_int(tail) == 0:
            program(ColumnGroup(b, shape, axes, (*at[:-1], start), lanes))
            return
        with b.when(start + lanes <= index(last)):
            program(ColumnGroup(b, shape, axes, (*at[:-1], start), lanes))
        with b.when(start + lanes > index(last)), b.loop(index(last) - start) as rest:
            program(RowGroup(b, shape, axes, (*at[:-1], start + rest), 0))

    tiles = whole if as_int(tail) == 0 else ceil_div(last, lanes)
    b.nest([*lead, tiles], body, work * lanes, sequential_last=True)


# ---- spaces --------------------------------------------------------------------------------------


def collapse(shape: Sequence[Any], axes: Sequence[int]) -> tuple[list[Any], list[int]]:
    """The space with neighbouring axes of one kind (reduced or kept) merged.

    Returns the merged shape and its reduced axes (at least one if ``axes`` is not empty): ``[2, 3,
    4, 5]`` reduced over axes 2 and 3 is ``[6, 20]`` reduced over axis 1. Axes of extent 1 are
    merged with any neighbour. A tensor in memory may be viewed with the merged shape.
    """
    runs: list[tuple[bool, list[Any]]] = []
    for i, extent in enumerate(shape):
        if as_int(extent) == 1:
            continue
        reduced = i in axes
        if runs and runs[-1][0] == reduced:
            runs[-1][1].append(extent)
        else:
            runs.append((reduced, [extent]))
    if axes and not any(reduced for reduced, _ in runs):
        runs.append((True, [1]))
    merged = [product(extents) for _, extents in runs]
    return merged, [i for i, (reduced, _) in enumerate(runs) if reduced]


__all__ = [
    "MAX", "MAX_NUMBER", "MIN", "PRODUCT", "SUM", "At", "ColumnGroup", "Group", "Held", "Load",
    "Monoid", "RowGroup", "ceil_div", "collapse", "for_groups", "is_nan", "lowest", "split",
]  # fmt: skip
