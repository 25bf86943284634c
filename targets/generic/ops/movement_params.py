"""Helpers of movement ops' lowerings: parameters given at run time, bounds, unknown sizes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tvm import tirx

from ....ir.dims import Dim, sym
from ....ir.types import Shape
from ...tir.builder import BufferTensor, Builder, Expr
from ...tir.extents import as_int, flatten_index, index, product, unflatten
from ..constants import literal
from ..region import fresh_symbols
from ..registry import LowerContext

At = tuple[Expr, ...]


def int_params(ctx: LowerContext, i: int) -> list[Expr]:
    """The elements of integer input ``i`` (static length) as int64 expressions."""
    known = ctx.known(i)
    if known is not None:
        return [index(int(v)) for v in known.reshape(-1)]
    x = ctx.input(i)
    count = as_int(product(x.shape))
    if count is None:
        raise ctx.error(f"the number of elements of input {i} must be known")
    return [index(x[unflatten(index(k), x.shape)]) for k in range(count)]


def scalar_param(ctx: LowerContext, i: int) -> Expr:
    """The one element of input ``i`` in its compute type."""
    x = ctx.input(i)
    return x[(0,) * x.rank]


def zero(ctx: LowerContext) -> Expr:
    """Zero in the compute type of the result."""
    return literal(0, ctx.out_dtype())


def clamp(i: Expr, extent: Any) -> Expr:
    """``i`` clamped to ``[0, extent)``."""
    return tirx.max(tirx.min(i, index(extent) - 1), index(0))


def wrapped(ctx: LowerContext, i: Expr, extent: Any) -> Expr:
    """An index from a tensor: negative ones count from the end; clamped to the bounds."""
    known = as_int(i)
    size = as_int(extent)
    if known is not None and size is not None:
        return index(max(0, min(known + size if known < 0 else known, size - 1)))
    i = ctx.b.let(index(i))
    return clamp(tirx.Select(i < 0, i + index(extent), i), extent)


def within(i: Expr, extent: Any) -> Expr:
    """The condition ``0 <= i < extent``."""
    return tirx.all(i >= 0, i < index(extent))


def replaced(at: Sequence[Expr], axis: int, value: Expr) -> At:
    """``at`` with another index along one axis."""
    return (*at[:axis], value, *at[axis + 1 :])


def fresh_sizes(ctx: LowerContext, *shapes: Sequence[Any]) -> list[Expr]:
    """Of the outputs' extents, those that are new symbols, in the order inference made them."""
    found: dict[Dim, Expr] = {}
    for t, shape in zip(ctx.types, shapes, strict=False):
        for d, extent in zip(t.dims, shape, strict=True):
            found.setdefault(d, index(extent))
    return [found[sym(name)] for name in fresh_symbols(ctx.types, ctx.input_types)]


# ---- parameters of each axis ---------------------------------------------------------------------


def all_known(ctx: LowerContext, inputs: Iterable[int]) -> bool:
    """True where these inputs are constants or omitted."""
    return all(not ctx.has(i) or ctx.known(i) is not None for i in inputs)


def axis_params(ctx: LowerContext, i: int, count: int, rank: int) -> list[Expr]:
    """The axes that input ``i`` names, made non-negative (omitted: the first ``count``)."""
    axes = int_params(ctx, i) if ctx.has(i) else [index(k) for k in range(count)]
    return [_in_rank(ctx.b, a, rank) for a in axes]


def _in_rank(b: Builder, axis: Expr, rank: int) -> Expr:
    known = as_int(axis)
    if known is not None:
        return index(known % rank)
    axis = b.let(axis)
    return b.let(clamp(tirx.Select(axis < 0, axis + rank, axis), rank))


def spread(
    table: BufferTensor, row: int, axes: Sequence[Expr], values: Sequence[Expr],
    otherwise: Sequence[Expr],
) -> None:  # fmt: skip
    """Write row ``row`` of ``table``: the value of each axis named, else its ``otherwise``."""
    for a, value in enumerate(otherwise):
        table.store((row, a), value)
    for axis, value in zip(axes, values, strict=True):
        table.store((row, axis), value)


def spread_open(
    ctx: LowerContext, table: BufferTensor, row: int, values: int, otherwise: Sequence[Expr],
    first: Expr | int = 0, count: Expr | None = None,
) -> None:  # fmt: skip
    """:func:`spread` of input ``values``, whose length is open, by the axes that input 3 names.

    ``count`` elements from ``first`` on; by default all. Without input 3 the first axes are meant.
    """
    b, x = ctx.b, ctx.input(values) if ctx.has(values) else None
    spread(table, row, (), (), otherwise)
    if x is None:
        return
    with b.loop(index(x.shape[0]) if count is None else count) as k:
        axis = index(ctx.input(3)[k]) if ctx.has(3) else k
        table.store((row, _in_rank(b, axis, len(otherwise))), index(x[k + first]))


def is_open(ctx: LowerContext, i: int) -> bool:
    """True where the length of the vector that is input ``i`` is only known at run time."""
    return ctx.known(i) is None and as_int(product(ctx.input(i).shape)) is None


# ---- index maps of reshapes ----------------------------------------------------------------------


def _matching(a: Shape, b: Shape) -> tuple[int, int]:
    """The fewest leading dims of ``a`` and ``b`` with the same product."""
    for total in range(1, len(a) + len(b)):
        for i in range(max(0, total - len(b)), min(total, len(a)) + 1):
            left: Dim = 1
            right: Dim = 1
            for d in a[:i]:
                left = left * d
            for d in b[: total - i]:
                right = right * d
            if left == right:
                return i, total - i
    return len(a), len(b)


def reshape_map(
    ctx: LowerContext, at: Sequence[Expr], have: Shape, want: Shape
) -> tuple[Expr, ...]:
    """Indices into shape ``want`` of the element at ``at`` in shape ``have``.

    Indices of dims that correspond are kept. Only those of dims that are merged or split are
    computed: from ``[8, 6]`` to ``[8, 2, 3]`` only the last two.
    """
    out: list[Expr] = []
    while have or want:
        i, j = _matching(have, want)
        extents = [ctx.b.dim(d) for d in want[:j]]
        if i == j == 1:
            out.append(at[0])
        elif j:
            flat = flatten_index(at[:i], [ctx.b.dim(d) for d in have[:i]])
            out.extend(unflatten(ctx.b.let(flat) if j > 1 else flat, extents))
        at, have, want = at[i:], have[i:], want[j:]
    return tuple(out)


def cuts(have: Shape, want: Shape) -> int:
    """The number of divisions that :func:`reshape_map` needs."""
    count = 0
    while have or want:
        i, j = _matching(have, want)
        count += max(0, j - 1) if i else 0
        have, want = have[i:], want[j:]
    return count
