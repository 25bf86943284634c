"""Partial results of reductions in vector registers, and how they are combined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import tvm
from tvm import tirx

from . import arithmetic
from .builder import BufferTensor, Builder, Expr
from .extents import as_int, index
from .numeric import dtype_of

Combine: TypeAlias = "Callable[[Expr, Expr], Expr]"

RUN = 128
"""Blocks of lanes that are added up before the sum is added to the total of a long row."""


@dataclass(frozen=True)
class Monoid:
    """An associative, commutative combination, with its identity for each TVM dtype.

    ``ordered``: elements must be combined one after the other, in their order.
    """

    combine: Combine
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


def _wrapping(integers: Combine, floats: Combine) -> Combine:
    """``integers`` with wrap-around, or ``floats``. Partial results are no literals, so that TVM's
    constant folding cannot change them.
    """
    return lambda a, b: (floats if dtype_of(a).startswith("float") else integers)(a, b)


SUM = Monoid(_wrapping(arithmetic.add, lambda a, b: a + b), lambda t: tirx.const(0, t))
PRODUCT = Monoid(_wrapping(arithmetic.multiply, lambda a, b: a * b), lambda t: tirx.const(1, t))
MAX = Monoid(_larger, lowest)
"""The maximum; NaN wins, as in NumPy."""
MAX_NUMBER = Monoid(tirx.max, lowest)
"""The maximum, or any element where one is NaN."""
MIN = Monoid(_smaller, highest)
"""The minimum; NaN wins, as in NumPy."""


class Partial:
    """One partial result in each of ``lanes`` lanes of a register."""

    def __init__(self, b: Builder, monoid: Monoid, dtype: str, lanes: int) -> None:
        self.b, self.monoid, self.dtype, self.lanes = b, monoid, dtype, lanes
        self._values = b.local((lanes,), dtype)
        with b.lanes(lanes) as lane:
            self._values.store((lane,), monoid.identity(dtype))

    def __getitem__(self, lane: Expr) -> Expr:
        return self._values[lane]

    def add(self, value: Callable[[Expr], Expr]) -> None:
        """Combine every lane with ``value(lane)``."""
        with self.b.lanes(self.lanes) as lane:
            self._values.store((lane,), self.monoid.combine(self._values[lane], value(lane)))

    def merged(self) -> Expr:
        """All lanes combined; the lanes hold nothing useful afterwards."""
        merge_lanes(self.b, self._values, self.monoid, self.lanes)
        return self._values[0]

    def fold(self, n: Any, value: Callable[[Expr, Expr], Expr]) -> None:
        """Combine with ``value(i, lane)`` for all ``i < n``.

        Long sums are computed in runs of :data:`RUN`, whose sums are then added. The rounding error
        grows with the length of a run and the number of runs, rather than with ``n``.
        """
        known = as_int(n)
        if self.monoid is not SUM or (known is not None and known < 2 * RUN):
            self._fold_run(index(0), n, value)
            return
        runs, rest = split(n, RUN)
        with self.b.loop(runs) as run:
            part = Partial(self.b, self.monoid, self.dtype, self.lanes)
            part._fold_run(run * RUN, RUN, value)
            self.add(lambda lane: part[lane])
        self._fold_run(index(runs) * RUN, rest, value)

    def _fold_run(self, start: Expr, n: Any, value: Callable[[Expr, Expr], Expr]) -> None:
        if as_int(n) == 0:
            return
        with self.b.loop(n) as i:
            self.add(lambda lane: value(start + i, lane))


def split(n: Any, lanes: int) -> tuple[Any, Any]:
    """Whole blocks of ``lanes`` in ``n``, and what is left."""
    known = as_int(n)
    if known is not None:
        return divmod(known, lanes)
    if lanes == 1:
        return n, 0
    return tirx.floordiv(n, index(lanes)), tirx.floormod(n, index(lanes))


def ceil_div(n: Any, by: int) -> Any:
    """``n / by`` rounded up."""
    known = as_int(n)
    return -(-known // by) if known is not None else tirx.floordiv(n + index(by - 1), index(by))


def vector_lanes(dtype: str, vector_bytes: int) -> int:
    """Elements of a TVM dtype in one vector (1 without vectors)."""
    return max(1, vector_bytes * 8 // max(8, int(tvm.DataType(dtype).bits)))


def row_lanes(n: Any, dtype: str, vector_bytes: int) -> int:
    """Lanes for a reduction along a contiguous row: up to four vectors, with few elements over."""
    width = vector_lanes(dtype, vector_bytes)
    known = as_int(n)
    return width if known is None or width == 1 else best_lanes(known, 4 * width)


def column_lanes(shape: Sequence[Any], kept: Sequence[int], dtype: str, vector_bytes: int) -> int:
    """The number of columns to reduce at once; 1 where the last axis is reduced or very short."""
    if not kept or kept[-1] != len(shape) - 1 or len(kept) == len(shape):
        return 1
    width = vector_lanes(dtype, vector_bytes)
    n = as_int(shape[-1])
    return width if n is None or width == 1 else best_lanes(n, 2 * width)


def best_lanes(n: int, most: int) -> int:
    """The power of two up to ``most`` for which blocks, elements left over and merging steps are
    the fewest together.

    It is 1 for a row of ``n`` that is too short for lanes to pay.
    """
    candidates = [2**p for p in range(most.bit_length()) if 2**p <= min(n, most)]
    best = min(candidates, default=1, key=lambda w: (n // w + n % w + w.bit_length(), w))
    return best if best >= 4 else 1


def merge_lanes(b: Builder, acc: BufferTensor, monoid: Monoid, lanes: int) -> None:
    """Combine all lanes of ``acc`` into lane 0, by combining one half with the other repeatedly."""
    while lanes > 1:
        lanes //= 2
        with b.lanes(lanes) as lane:
            acc.store((lane,), monoid.combine(acc[lane], acc[lane + lanes]))
