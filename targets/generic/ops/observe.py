"""The lowering of counts of magnitudes."""

from __future__ import annotations

from tvm import tirx

from ....ir.magnitudes import BINS, FIRST, HALF, SHIFT
from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import as_int, index, product
from ...tir.numeric import cast
from ..registry import LowerContext, lowering

_TASKS = 8
"""Parts of the elements, each with counts of its own: any two threads may share the work."""

_MANY = 1 << 16
"""Elements to assume where their number is not known."""
_PER_NUMBER = 4
"""Scalar operations that counting one takes, about."""


@lowering("kiln.CountMagnitudes")
def lower_count_magnitudes(c: LowerContext) -> TensorExpr:
    """Each task counts a part of the elements for itself; the counts are added up at last."""
    b, x, out = c.b, c.buffered(0), c.result(0)
    count = index(product(x.shape))
    flat, size = b.view(x, (count,)), tirx.floordiv(count + (_TASKS - 1), index(_TASKS))
    parts = b.workspace((_TASKS, BINS), "int32", "counts")

    def task(at: tuple[Expr, ...]) -> None:
        (t,) = at
        with b.loop(BINS) as i:
            parts.store((t, i), tirx.const(0, "int32"))
        first = b.let(t * size)
        with b.loop(tirx.max(tirx.min(size, count - first), index(0))) as i:
            _count(b, parts, t, flat[first + i])

    known = as_int(count) or _MANY
    b.nest((_TASKS,), task, cost=(known * _PER_NUMBER + BINS) // _TASKS, sequential_last=True)

    def total(at: tuple[Expr, ...]) -> None:
        found = parts[(index(0), *at)]
        for t in range(1, _TASKS):
            found = found + parts[(index(t), *at)]
        out.store(at, found)

    b.nest((BINS,), total, cost=_TASKS)
    return out


def _count(b: Builder, parts: BufferTensor, task: Expr, value: Expr) -> None:
    """Count one number."""
    bits = b.let(tirx.reinterpret("int32", cast(value, "float32")))
    magnitude = tirx.shift_right(tirx.bitwise_and(bits, 0x7FFFFFFF), tirx.const(SHIFT, "int32"))
    place = tirx.max(tirx.min(magnitude - FIRST, HALF - 1), 0)
    negative = tirx.Select(bits < 0, tirx.const(HALF, "int32"), tirx.const(0, "int32"))
    where = b.let(cast(place + negative, "int64"))
    parts.store((task, where), parts[(task, where)] + 1)
