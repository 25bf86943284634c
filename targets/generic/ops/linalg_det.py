"""Lowering of ``Det``: the product of the pivots of an LU factorization with row exchanges."""

from __future__ import annotations

from tvm import tirx

from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.contract import At
from ...tir.extents import index
from ...tir.numeric import cast
from ...tir.scratch import scratch
from ..registry import LowerContext, lowering


@lowering("Det")
def _lower_det(ctx: LowerContext) -> TensorExpr:
    x = ctx.input(0)
    out = ctx.result()
    n = index(x.shape[-1])
    b = ctx.b
    matrices = scratch(b, out.shape, x.shape[-2:], x.compute_dtype, "matrix")

    def body(at: At) -> None:
        a = matrices(at)
        with b.grid(n, n) as (i, j):
            a.store((i, j), x.at(*at, i, j))
        result = b.scalar(x.compute_dtype, 1.0)
        with b.loop(n) as k:
            pivot = _pivot_row(b, a, n, k)
            with b.when(pivot > k):
                _exchange_rows(b, a, n, k, pivot)
                result.set(-result.get())
            result.set(result.get() * a[k, k])
            with b.when(a[k, k] != tirx.const(0, x.compute_dtype)):
                _eliminate(b, a, n, k)
        out.store(at, result.get())

    b.nest(out.shape, body, cost=1_000, sequential_last=True)
    return out


def _pivot_row(b: Builder, a: BufferTensor, n: Expr, k: Expr) -> Expr:
    """The row from ``k`` on with the largest element in column ``k``."""
    best, where = b.scalar(a.dtype, -1.0), b.scalar("int64", k)
    with b.loop(n - k) as r:
        size = b.let(tirx.abs(a[k + r, k]))
        with b.when(size > best.get()):
            best.set(size)
            where.set(k + r)
    return b.let(where.get())


def _exchange_rows(b: Builder, a: BufferTensor, n: Expr, i: Expr, k: Expr) -> None:
    with b.loop(n) as j:
        kept = b.scalar(a.dtype, a[i, j])
        a.store((i, j), a[k, j])
        a.store((k, j), kept.get())


def _eliminate(b: Builder, a: BufferTensor, n: Expr, k: Expr) -> None:
    """Clear column ``k`` below the pivot."""
    with b.loop(n - k - 1) as r:
        row = b.let(k + 1 + r, "row")
        factor = b.scalar(a.dtype, cast(a[row, k], a.dtype) / a[k, k])
        with b.loop(n - k - 1) as c:
            column = k + 1 + c
            a.store((row, column), a[row, column] - factor.get() * a[k, column])
