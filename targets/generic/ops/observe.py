"""The lowering of ``kiln.Observe``: counts of magnitudes and extremes, in one pass over memory.

Extremes and bins are computed in vectors, for a chunk of elements that stays in the nearest cache.
Counting takes one element after the other, in several tables by turns: where neighbours are equal,
as zeros behind a Relu are, no count waits until the one in front of it is stored.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeAlias

from tvm import tirx

from ....ir.magnitudes import BINS, FIRST, HALF, SHIFT
from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import as_int, index, product
from ...tir.numeric import cast
from ...tir.partial import MAX, MIN, Monoid, Partial, ceil_div, split, vector_lanes
from ...tir.scratch import scratch, slice_of
from ..registry import LowerContext, lowering

_TABLES = 4
"""Tables of counts that a task fills by turns; the bins in use of all of them fit the nearest
cache."""
_CHUNK = 1_024
"""Elements that are looked at together."""
_VECTORS = 4
"""Vectors of extremes: a comparison need not wait for the one in front of it."""
_TASKS = 8
"""Most parts of the elements, each with tables of its own: any two threads may share the work."""
_TASK = 1 << 16
"""Elements that are worth the tables of a task, which are cleared and added up."""
_PER_NUMBER = 4
"""Scalar operations that observing one element takes, about."""

Elements: TypeAlias = "Callable[[Expr], Expr]"
"""An element by its index in a chunk."""


@lowering("kiln.Observe")
def lower_observe(c: LowerContext) -> list[TensorExpr]:
    """Each task observes a part of the elements for itself; the parts are put together at last."""
    b, x = c.b, c.buffered(0)
    counted = b.let(c.input(1)[()])
    count = index(product(x.shape))
    flat, known = b.view(x, (count,)), as_int(count)
    tasks = _TASKS if known is None else max(1, min(_TASKS, known // _TASK))
    size = ceil_div(count, tasks)
    tables = b.workspace((tasks, _TABLES, BINS), "int32", "counts")
    ends = {monoid: b.workspace((tasks,), x.dtype, "ends") for monoid in (MIN, MAX)}
    bins = scratch(b, (tasks,), (_CHUNK,), "int32", "bins")

    def task(at: tuple[Expr, ...]) -> None:
        own, chunk = slice_of(tables, at), bins(at)
        extremes = [_Extreme(b, monoid, x.compute_dtype) for monoid in ends]
        with b.when(counted):
            _clear(b, own)
        first = b.let(at[0] * size)
        with _chunk(b, flat, first, tirx.min(first + size, count)) as (elements, length):
            for extreme in extremes:
                extreme.look(elements, length)
            with b.when(counted):
                _find_bins(b, elements, length, chunk)
                _count(b, chunk, length, own)
        for extreme, end in zip(extremes, ends.values(), strict=True):
            end.store(at, extreme.merged())

    work = (known or _TASKS * _TASK) * _PER_NUMBER // tasks + _TABLES * BINS
    b.nest((tasks,), task, cost=work, sequential_last=True)
    together = b.view(tables, (tasks * _TABLES, BINS))
    return [
        _sums(c, together, counted),
        *(_combined(c, i, monoid, end) for i, (monoid, end) in enumerate(ends.items(), 1)),
    ]


class _Extreme:
    """The least or the greatest element so far, in lanes, and of those that fill no vector."""

    def __init__(self, b: Builder, monoid: Monoid, dtype: str) -> None:
        self._b, self._monoid = b, monoid
        self._lanes = _VECTORS * vector_lanes(dtype, b.loops.vector_bytes)
        self._whole, self._rest = (Partial(b, monoid, dtype, n) for n in (self._lanes, 1))

    def look(self, elements: Elements, length: Expr) -> None:
        """Go through a chunk."""
        whole, rest = split(length, self._lanes)
        self._whole.fold(whole, lambda i, lane: elements(i * self._lanes + lane))
        done = self._b.let(index(whole) * self._lanes)
        self._rest.fold(rest, lambda i, _lane: elements(done + i))

    def merged(self) -> Expr:
        """The extreme of all that was looked at."""
        return self._monoid.combine(self._whole.merged(), self._rest[index(0)])


@contextmanager
def _chunk(b: Builder, x: BufferTensor, first: Expr, stop: Expr) -> Iterator[tuple[Elements, Expr]]:
    """A loop over the chunks of elements ``first .. stop``: each with its length."""
    total = b.let(tirx.max(stop - first, index(0)))
    with b.loop(ceil_div(total, _CHUNK)) as k:
        start = b.let(first + k * _CHUNK)
        yield lambda i: x[start + i], b.let(tirx.min(index(_CHUNK), total - k * _CHUNK))


def _clear(b: Builder, tables: BufferTensor) -> None:
    with b.grid(*tables.shape) as at:
        tables.store(at, tirx.const(0, "int32"))


def _find_bins(b: Builder, elements: Elements, length: Expr, bins: BufferTensor) -> None:
    """The bins of the elements of a chunk, in a loop that LLVM vectorises."""
    with b.loop(length) as i:
        bins.store((i,), _bin(b, elements(i)))


def _bin(b: Builder, value: Expr) -> Expr:
    """The bin of an element, int32."""
    bits = b.let(tirx.reinterpret("int32", cast(value, "float32")))
    magnitude = tirx.shift_right(tirx.bitwise_and(bits, 0x7FFFFFFF), tirx.const(SHIFT, "int32"))
    place = tirx.max(tirx.min(magnitude - FIRST, HALF - 1), 0)
    return place + tirx.Select(bits < 0, tirx.const(HALF, "int32"), tirx.const(0, "int32"))


def _count(b: Builder, bins: BufferTensor, length: Expr, tables: BufferTensor) -> None:
    """Count the elements of a chunk."""
    turns, rest = split(length, _TABLES)
    with b.loop(turns) as i:
        for table in range(_TABLES):
            _add_one(b, tables, table, bins[i * _TABLES + table])
    done = b.let(index(turns) * _TABLES)
    with b.loop(rest) as i:
        _add_one(b, tables, 0, bins[done + i])


def _add_one(b: Builder, tables: BufferTensor, table: int, place: Expr) -> None:
    at = (index(table), b.let(cast(place, "int64")))
    tables.store(at, tables[at] + 1)


def _sums(c: LowerContext, tables: BufferTensor, counted: Expr) -> BufferTensor:
    """The counts of all tables together, or 0."""
    b, out = c.b, c.result(0)

    def total(at: tuple[Expr, ...]) -> None:
        found = tables[(index(0), *at)]
        for t in range(1, int(tables.shape[0])):
            found = found + tables[(index(t), *at)]
        out.store(at, found)

    with b.when(counted):
        b.nest((BINS,), total, cost=int(tables.shape[0]))
    with b.otherwise(), b.loop(BINS) as i:
        out.store((i,), tirx.const(0, "int32"))
    return out


def _combined(c: LowerContext, i: int, monoid: Monoid, ends: BufferTensor) -> BufferTensor:
    """The extreme of all tasks, as result ``i``."""
    out = c.result(i)

    def end(_at: tuple[Expr, ...]) -> None:
        found = ends[index(0)]
        for t in range(1, int(ends.shape[0])):
            found = c.b.let(monoid.combine(found, ends[index(t)]))
        out.store((), found)

    c.b.nest((), end)
    return out
