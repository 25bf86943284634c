"""Lowerings of ``MatMul``, ``Gemm`` and ``FusedMatMul``; transposed operands are not copied."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.contract import At, Contraction, contract
from ...tir.extents import as_int, product
from ...tir.numeric import cast, dtype_of
from ..broadcast import aligned, broadcast_index
from ..registry import LowerContext, lowering


@dataclass(frozen=True)
class _Matrix:
    """A batch of matrices in memory, whose last two axes may be read swapped."""

    tensor: BufferTensor
    swapped: bool

    @property
    def batch(self) -> tuple[Any, ...]:
        return self.tensor.shape[:-2]

    @property
    def extents(self) -> tuple[Any, Any]:
        first, second = self.tensor.shape[-2:]
        return (second, first) if self.swapped else (first, second)

    def load(self, batch: Sequence[Any], at: At, i: Expr, j: Expr) -> Expr:
        """Element ``i, j`` of the matrix that belongs to ``at`` of the broadcast ``batch``."""
        lead = broadcast_index(at, self.batch, batch)
        return self.tensor[(*lead, j, i) if self.swapped else (*lead, i, j)]


def _matrix(b: Builder, x: BufferTensor, swapped: bool, column: bool) -> _Matrix:
    """``x`` as matrices; a vector is one row, or one column."""
    if x.rank == 1:
        x = b.view(x, (x.shape[0], 1) if column else (1, x.shape[0]))
        swapped = False
    return _Matrix(x, swapped)


Finish = Callable[[At, Expr], Expr]


def _multiply(
    ctx: LowerContext, a: _Matrix, b: _Matrix, batch: Sequence[Any], finish: Finish
) -> TensorExpr:
    """Store ``finish(index, a @ b)`` into output 0, seen as ``[*batch, rows, columns]``."""
    (rows, inner), (_, columns) = a.extents, b.extents
    result = ctx.result()
    out = ctx.b.view(result, (*batch, rows, columns))
    dtype = out.compute_dtype

    def store(at: At, i: Expr, j: Expr, value: Expr) -> None:
        out.store((*at, i, j), finish((*at, i, j), value))

    product = Contraction(
        tuple(batch), rows, columns, (inner,),
        lambda at, i, k: cast(a.load(batch, at, i, k[0]), dtype),
        lambda at, k, j: cast(b.load(batch, at, k[0], j), dtype),
        store, dtype,
    )  # fmt: skip
    if not b.swapped and as_int(columns) != 1:
        contract(ctx.b, product, "columns")
    elif not a.swapped:
        contract(ctx.b, product, "inner")
    else:
        contract(ctx.b, product.transposed(), "columns")
    return result


@lowering("MatMul")
def _lower_matmul(ctx: LowerContext) -> TensorExpr:
    return _lower_batched(ctx, False, False, lambda _at, value: value)


@lowering("com.microsoft.FusedMatMul")
def _lower_fused_matmul(ctx: LowerContext) -> TensorExpr:
    alpha = ctx.attr("alpha")
    return _lower_batched(
        ctx,
        bool(ctx.attr("transA")),
        bool(ctx.attr("transB")),
        lambda _at, value: _scaled(value, alpha),
    )


def _lower_batched(ctx: LowerContext, swap_a: bool, swap_b: bool, finish: Finish) -> TensorExpr:
    a = _matrix(ctx.b, ctx.buffered(0), swap_a, column=False)
    b = _matrix(ctx.b, ctx.buffered(1), swap_b, column=True)
    if not b.batch and a.batch and not a.swapped:  # one matrix for all: more rows instead
        rows = product(a.tensor.shape[:-1])
        a = _Matrix(ctx.b.view(a.tensor, (rows, a.tensor.shape[-1])), False)
    return _multiply(ctx, a, b, _batch_shape(ctx, a, b), finish)


def _batch_shape(ctx: LowerContext, a: _Matrix, b: _Matrix) -> tuple[Any, ...]:
    if not a.batch and not b.batch:
        return ()
    rank = max(len(a.batch), len(b.batch))
    return ctx.out_shape()[:rank]


@lowering("Gemm")
def _lower_gemm(ctx: LowerContext) -> TensorExpr:
    a = _matrix(ctx.b, ctx.buffered(0), bool(ctx.attr("transA")), column=False)
    b = _matrix(ctx.b, ctx.buffered(1), bool(ctx.attr("transB")), column=True)
    alpha, beta = ctx.attr("alpha"), ctx.attr("beta")
    addend = aligned(ctx, 2) if ctx.has(2) else None

    def finish(at: At, value: Expr) -> Expr:
        value = _scaled(value, alpha)
        if addend is None:
            return value
        return value + _scaled(cast(addend(at), dtype_of(value)), beta)

    return _multiply(ctx, a, b, (), finish)


def _scaled(value: Expr, factor: float) -> Expr:
    if factor == 1.0:
        return value
    dtype = dtype_of(value)
    if dtype.startswith("float"):
        return value * tirx.const(factor, dtype)
    return cast(cast(value, "float64") * tirx.const(factor, "float64"), dtype)
