"""Reductions over some axes of an iteration space, vectorised without fast-math.

A float sum may not be reordered by the compiler, so the lanes stand in the code: where the last
axis is reduced, each row keeps a vector of partial results; where it is kept, a tile of adjacent
columns is reduced at once, a lane each. Kernels are written once against :class:`Group`::

    def program(g):
        total = g.fold(lambda at: x[at], SUM, "float32")
        g.each(lambda at: y.store(at, x[at] - total() / n))

    for_groups(b, x.shape, axes, program)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import tvm
from tvm import tirx

from .builder import BufferTensor, Builder, Expr, as_int, index, product, static_product
from .numeric import cast, dtype_of

At: TypeAlias = "tuple[Expr, ...]"
Load: TypeAlias = "Callable[[At], Expr]"
Held: TypeAlias = "Callable[[], Expr]"
Program: TypeAlias = "Callable[[Group], None]"


RUN = 128
"""Blocks of lanes that are added up before they join the total of a long row."""


@dataclass(frozen=True)
class Monoid:
    """An associative, commutative combination with the identity of each TVM dtype.

    ``ordered`` asks for the elements of a group one after the other.
    """

    combine: Callable[[Expr, Expr], Expr]
    identity: Callable[[str], Expr]
    ordered: bool = False


def lowest(dtype: str) -> Expr:
    """The value of a TVM dtype below all others: minus infinity, or the least integer."""
    return -tirx.infinity(dtype) if dtype.startswith("float") else tirx.min_value(dtype)


def highest(dtype: str) -> Expr:
    """The value of a TVM dtype above all others."""
    return tirx.infinity(dtype) if dtype.startswith("float") else tirx.max_value(dtype)


def is_nan(value: Expr) -> Expr:
    """Whether a float32 or float64 value is NaN, in integer arithmetic that vectorises."""
    bits = "uint64" if dtype_of(value).startswith("float64") else "uint32"
    width, exponent = (64, 0x7FF << 52) if bits == "uint64" else (32, 0xFF << 23)
    magnitude = tirx.bitwise_and(
        tirx.reinterpret(bits, value), tirx.const((1 << (width - 1)) - 1, bits)
    )
    return magnitude > tirx.const(exponent, bits)


def _larger(a: Expr, b: Expr) -> Expr:
    if not dtype_of(a).startswith("float"):
        return tirx.max(a, b)
    return tirx.Select(tirx.any(a > b, is_nan(a)), a, b)


def _smaller(a: Expr, b: Expr) -> Expr:
    if not dtype_of(a).startswith("float"):
        return tirx.min(a, b)
    return tirx.Select(tirx.any(a < b, is_nan(a)), a, b)


SUM = Monoid(lambda a, b: a + b, lambda t: tirx.const(0, t))
PRODUCT = Monoid(lambda a, b: a * b, lambda t: tirx.const(1, t))
MAX = Monoid(_larger, lowest)
"""The maximum; NaN wins, as in NumPy."""
MAX_NUMBER = Monoid(tirx.max, lowest)
"""The maximum, or any element where one is NaN."""
MIN = Monoid(_smaller, highest)
"""The minimum; NaN wins, as in NumPy."""


class Group:
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

    def fold(self, load: Load, monoid: Monoid, dtype: str) -> Held:
        """Combine ``load(at)`` over the group in TVM dtype ``dtype``."""
        raise NotImplementedError

    def hold(self, value: Callable[[], Expr], dtype: str) -> Held:
        """A scalar of the group of TVM dtype ``dtype``, computed once."""
        raise NotImplementedError

    def each(self, body: Callable[[At], None]) -> None:
        """Run ``body(at)`` for every element of the group."""
        raise NotImplementedError

    def once(self, body: Callable[[At], None]) -> None:
        """Run ``body(kept)`` for the group, with its index among the kept axes."""
        raise NotImplementedError


class RowGroup(Group):
    """One group; its last axis is cut into lanes where it is the last of the space."""

    def __init__(
        self, b: Builder, shape: Sequence[Any], axes: Sequence[int], at: At, vector_bytes: int
    ) -> None:
        super().__init__(b, shape, axes, at)
        contiguous = bool(axes) and axes[-1] == len(shape) - 1
        self._vector_bytes = vector_bytes if contiguous else 0

    def fold(self, load: Load, monoid: Monoid, dtype: str) -> Held:
        lanes = row_lanes(self.extents, dtype, self._vector_bytes)
        if lanes > 1 and not monoid.ordered:
            return self._fold_lanes(load, monoid, dtype, lanes)
        total = self.b.scalar(dtype, monoid.identity(dtype))
        with self.b.grid(*self.extents) as r:
            total.set(monoid.combine(total.get(), load(self.place(r))))
        return self.hold(total.get, dtype)

    def _fold_lanes(self, load: Load, monoid: Monoid, dtype: str, lanes: int) -> Held:
        b = self.b
        *outer, n = self.extents
        whole, tail = split(n, lanes)
        acc = self._lanes_of(monoid, dtype, lanes)
        rest = b.scalar(dtype, monoid.identity(dtype))
        with b.grid(*outer) as r:

            def add(into: BufferTensor, block: Expr, r: At = r) -> None:
                with b.lanes(lanes) as lane:
                    value = load(self.place((*r, block * lanes + lane)))
                    into.store((lane,), monoid.combine(into[lane], value))

            runs, blocks = self._add_runs(add, acc, whole, monoid, lanes)
            with b.loop(blocks) as block:
                add(acc, index(runs) * RUN + block)
            if as_int(tail) != 0:
                with b.loop(tail) as i:
                    value = load(self.place((*r, index(whole) * lanes + i)))
                    rest.set(monoid.combine(rest.get(), value))
        merge_lanes(b, acc, monoid, lanes)
        return self.hold(lambda: monoid.combine(acc[0], rest.get()), dtype)

    def _lanes_of(self, monoid: Monoid, dtype: str, lanes: int) -> BufferTensor:
        acc = self.b.local((lanes,), dtype)
        with self.b.lanes(lanes) as lane:
            acc.store((lane,), monoid.identity(dtype))
        return acc

    def _add_runs(
        self, add: Callable[[BufferTensor, Expr], None], acc: BufferTensor, whole: Any,
        monoid: Monoid, lanes: int,
    ) -> tuple[Any, Any]:  # fmt: skip
        """Add long rows in runs with accumulators of their own, which keeps sums precise.

        Returns how many runs that were, and the blocks left over.
        """
        known = as_int(whole)
        if monoid is not SUM or (known is not None and known < 2 * RUN):
            return 0, whole
        b = self.b
        runs, blocks = split(whole, RUN)
        with b.loop(runs) as run:
            part = self._lanes_of(monoid, acc.dtype, lanes)
            with b.loop(RUN) as block:
                add(part, run * RUN + block)
            with b.lanes(lanes) as lane:
                acc.store((lane,), acc[lane] + part[lane])
        return runs, blocks

    def hold(self, value: Callable[[], Expr], dtype: str) -> Held:
        found = self.b.let(cast(value(), dtype))
        return lambda: found

    def each(self, body: Callable[[At], None]) -> None:
        with self.b.grid(*self.extents) as r:
            body(self.place(r))

    def once(self, body: Callable[[At], None]) -> None:
        body(self.at)


class ColumnGroup(Group):
    """Adjacent groups along the last kept axis, a lane each; only for a contiguous last axis."""

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
    def _each_lane(self) -> Iterator[Expr]:
        with self.b.lanes(self._lanes) as lane:
            self._lane = lane
            yield lane
            self._lane = index(0)

    def fold(self, load: Load, monoid: Monoid, dtype: str) -> Held:
        acc = self.b.local((self._lanes,), dtype)
        with self._each_lane() as lane:
            acc.store((lane,), monoid.identity(dtype))
        with self.b.grid(*self.extents) as r, self._each_lane() as lane:
            acc.store((lane,), monoid.combine(acc[lane], load(self.place(r))))
        return lambda: acc[self._lane]

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


# ---- lanes ---------------------------------------------------------------------------------------


def split(n: Any, lanes: int) -> tuple[Any, Any]:
    """Whole blocks of ``lanes`` in ``n``, and what is left."""
    known = as_int(n)
    if known is not None:
        return divmod(known, lanes)
    return tirx.floordiv(n, index(lanes)), tirx.floormod(n, index(lanes))


def ceil_div(n: Any, by: int) -> Any:
    """``n / by`` rounded up."""
    known = as_int(n)
    return -(-known // by) if known is not None else tirx.floordiv(n + index(by - 1), index(by))


def vector_lanes(dtype: str, vector_bytes: int) -> int:
    """Elements of a TVM dtype in one vector (1 without vectors)."""
    return max(1, vector_bytes * 8 // max(8, int(tvm.DataType(dtype).bits)))


def row_lanes(extents: Sequence[Any], dtype: str, vector_bytes: int) -> int:
    """Lanes for a reduction along a contiguous row: up to four vectors, few elements left over."""
    width = vector_lanes(dtype, vector_bytes)
    n = as_int(extents[-1]) if extents else 1
    return width if n is None or width == 1 else best_lanes(n, 4 * width)


def column_lanes(
    shape: Sequence[Any], kept: Sequence[int], dtype: str, vector_bytes: int
) -> int:
    """Columns reduced at once; 1 where the last axis is reduced or very short."""
    if not kept or kept[-1] != len(shape) - 1 or len(kept) == len(shape):
        return 1
    width = vector_lanes(dtype, vector_bytes)
    n = as_int(shape[-1])
    return width if n is None or width == 1 else best_lanes(n, 2 * width)


def best_lanes(n: int, most: int) -> int:
    """The power of two up to ``most`` with the least blocks, left-over elements and merging steps.

    1 where a row of ``n`` is too short for lanes to pay.
    """
    candidates = [2**p for p in range(most.bit_length()) if 2**p <= min(n, most)]
    best = min(candidates, default=1, key=lambda w: (n // w + n % w + w.bit_length(), w))
    return best if best >= 4 else 1


def merge_lanes(b: Builder, acc: BufferTensor, monoid: Monoid, lanes: int) -> None:
    """Combine all lanes of ``acc`` into lane 0, halving them."""
    while lanes > 1:
        lanes //= 2
        with b.lanes(lanes) as lane:
            acc.store((lane,), monoid.combine(acc[lane], acc[lane + lanes]))


# ---- spaces --------------------------------------------------------------------------------------


def collapse(shape: Sequence[Any], axes: Sequence[int]) -> tuple[list[Any], list[int]]:
    """The space with neighbouring axes of one kind (reduced or kept) merged.

    Returns the merged shape and its reduced axes: at least one where ``axes`` is not empty. Axes
    of extent 1 join their neighbours, so a tensor in memory may be viewed with the merged shape.
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
