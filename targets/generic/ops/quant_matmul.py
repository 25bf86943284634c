"""Lowerings of integer matrix products: exact sums in int32, then what each op adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...tir import floats
from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.contract import At, Contraction, contract
from ...tir.extents import as_int, index, product
from ...tir.numeric import cast, dtype_of, round_to
from ..broadcast import aligned
from ..registry import LowerContext, lowering
from .quant import dynamic_parameters, quantized_bytes
from .quant_math import entry_index, requantize, scalar_of
from .rnn_activations import fused_activation

Finish = Callable[[At, Expr], Expr]


@dataclass(frozen=True)
class Matrix:
    """A batch of matrices in memory, with zero points for the tensor, its rows or its columns.

    ``swapped`` matrices are transposed in memory; ``zero`` is None if there are no zero points.
    """

    tensor: BufferTensor
    zero: TensorExpr | None
    by_row: bool
    swapped: bool = False

    @staticmethod
    def of(
        c: LowerContext, i: int, zero: int | None, by_row: bool, swapped: bool = False
    ) -> Matrix:
        """Input ``i``; a vector is one row (``by_row``) or one column."""
        x = c.buffered(i)
        if x.rank == 1:
            x = c.b.view(x, (1, x.shape[0]) if by_row else (x.shape[0], 1))
        given = None if zero is None or not c.has(zero) else c.buffered(zero)
        return Matrix(x, given, by_row, swapped)

    @property
    def extents(self) -> tuple[Any, Any]:
        first, second = self.tensor.shape[-2:]
        return (second, first) if self.swapped else (first, second)

    def load(self, at: At, i: Expr, j: Expr) -> Expr:
        """Element (i, j) less its zero point, as int32."""
        lead = leading(at, self.tensor.shape[:-2])
        place = (j, i) if self.swapped else (i, j)
        value = cast(self.tensor.at(*lead, *place), "int32")
        if self.zero is None:
            return value
        entry = vector_entry(self.zero, at, i if self.by_row else j, self.by_row)
        return value - cast(entry, "int32")


def leading(at: At, extents: Sequence[Any]) -> At:
    """The index into leading axes ``extents`` for index ``at`` into the axes they broadcast to."""
    pairs = zip(at[len(at) - len(extents) :], extents, strict=True)
    return tuple(index(0) if as_int(e) == 1 else tirx.min(i, index(e) - 1) for i, e in pairs)


def vector_entry(t: TensorExpr, at: At, i: Expr, by_row: bool) -> Expr:
    """The entry of a parameter for row (or column) ``i`` of the matrix at ``at``.

    The parameter is for the tensor, a vector, or has one extent of 1 among its last two.
    """
    if all(as_int(e) == 1 for e in t.shape):
        return scalar_of(t)
    if t.rank == 1:
        return t[entry_index(i, t.shape[0])]
    lead = leading(at, t.shape[:-2])
    if by_row:
        return t.at(*lead, entry_index(i, t.shape[-2]), index(0))
    return t.at(*lead, index(0), entry_index(i, t.shape[-1]))


def integer_product(c: LowerContext, a: Matrix, b: Matrix, finish: Finish) -> TensorExpr:
    """Store ``finish(index, a @ b)``; the index counts ``[*batch, row, column]``."""
    result = c.result()
    rows, inner = a.extents
    columns = b.extents[1]
    rank = max(a.tensor.rank, b.tensor.rank) - 2
    batch = c.out_shape()[:rank]
    out = c.b.view(result, (*batch, rows, columns))
    if rank and b.tensor.rank == 2 and not a.swapped and _whole(a):
        # One right operand for the whole batch: the left ones become rows of a single matrix.
        count = product(a.tensor.shape[:-1])
        a = Matrix(c.b.view(a.tensor, (count, inner)), a.zero, True)
        out, batch, rows = c.b.view(result, (count, columns)), (), count

    def store(at: At, i: Expr, j: Expr, value: Expr) -> None:
        out.store((*at, i, j), finish((*at, i, j), value))

    contraction = Contraction(
        tuple(batch), rows, columns, (inner,),
        lambda at, i, k: a.load(at, i, k[0]),
        lambda at, k, j: b.load(at, k[0], j),
        store, "int32",
    )  # fmt: skip
    contract(c.b, contraction, "inner" if b.swapped else "columns")
    return result


def _whole(a: Matrix) -> bool:
    return a.zero is None or all(as_int(e) == 1 for e in a.zero.shape)


@lowering("MatMulInteger")
def lower_matmul_integer(c: LowerContext) -> TensorExpr:
    """MatMulInteger-10: products of values less their zero points, summed in int32."""
    a, b = Matrix.of(c, 0, 2, True), Matrix.of(c, 1, 3, False)
    return integer_product(c, a, b, lambda _at, total: total)


@lowering("QLinearMatMul")
def lower_qlinear_matmul(c: LowerContext) -> TensorExpr:
    """QLinearMatMul-21: scales multiplied in their own type, the rest in float32."""
    a, b = Matrix.of(c, 0, 2, True), Matrix.of(c, 3, 5, False)
    name = c.input(1).dtype
    target = c.out_dtype()

    def finish(at: At, total: Expr) -> Expr:
        *batch, i, j = at
        left = vector_entry(c.input(1), tuple(batch), i, True)
        right = vector_entry(c.input(4), tuple(batch), j, False)
        product = round_to(c.b.let(left * right), name)
        scale = floats.divide(product, scalar_of(c.input(6)))
        scale = cast(round_to(c.b.let(scale), name), "float32")
        return requantize(c.b, total, scale, scalar_of(c.input(7)), target)

    return integer_product(c, a, b, finish)


def _plus_bias(c: LowerContext, i: int, value: Expr, j: Expr) -> Expr:
    return value + cast(c.input(i)[j], dtype_of(value)) if c.has(i) else value


@lowering("com.microsoft.MatMulIntegerToFloat")
def lower_matmul_integer_to_float(c: LowerContext) -> TensorExpr:
    """MatMulIntegerToFloat-1: ``(a - a_zero) @ (b - b_zero) * a_scale * b_scale + bias``."""
    a, b = Matrix.of(c, 0, 4, True), Matrix.of(c, 1, 5, False)

    def finish(at: At, total: Expr) -> Expr:
        j = at[-1]
        scale = scalar_of(c.input(2)) * vector_entry(c.input(3), (), j, False)
        return _plus_bias(c, 6, cast(total, "float32") * scale, j)

    return integer_product(c, a, b, finish)


@lowering("com.microsoft.DynamicQuantizeMatMul")
def lower_dynamic_quantize_matmul(c: LowerContext) -> TensorExpr:
    """DynamicQuantizeMatMul-1: A is quantized to uint8 over its own range first."""
    builder, x = c.b, c.buffered(0)
    scale, zero = builder.workspace((), "float32"), builder.workspace((), "uint8")
    dynamic_parameters(builder, x, scale, zero)
    quantized = quantized_bytes(builder, x, scale, zero)
    if x.rank == 1:
        quantized = builder.view(quantized, (1, x.shape[0]))
    a, b = Matrix(quantized, zero, True), Matrix.of(c, 1, 3, False)

    def finish(at: At, total: Expr) -> Expr:
        j = at[-1]
        factor = scale[()] * vector_entry(c.input(2), (), j, False)
        return _plus_bias(c, 4, cast(total, "float32") * factor, j)

    return integer_product(c, a, b, finish)


@lowering("com.microsoft.QGemm")
def lower_qgemm(c: LowerContext) -> TensorExpr:
    """QGemm-1: ``alpha * a_scale * b_scale * (A @ B + C)``, requantized where y_scale is given."""
    a = Matrix.of(c, 0, 2, True, bool(c.attr("transA")))
    b = Matrix.of(c, 3, 5, False, bool(c.attr("transB")))
    bias = aligned(c, 6) if c.has(6) else None

    def finish(at: At, total: Expr) -> Expr:
        total = total if bias is None else total + bias(at)
        scale = scalar_of(c.input(1)) * vector_entry(c.input(4), (), at[-1], False)
        scale = scale * tirx.const(float(c.attr("alpha")), "float32")
        if not c.has(8):
            return cast(total, "float32") * scale
        step = floats.divide(scale, scalar_of(c.input(7)))
        return requantize(c.b, total, step, scalar_of(c.input(8)), c.out_dtype())

    return integer_product(c, a, b, finish)


@lowering("com.microsoft.FusedGemm")
def lower_fused_gemm(c: LowerContext) -> TensorExpr:
    """FusedGemm-1: ``activation(alpha * A @ B + beta * C)``."""
    a, b, out = c.buffered(0), c.buffered(1), c.result()
    left, right = bool(c.attr("transA")), bool(c.attr("transB"))
    (rows, columns), activate = out.shape, fused_activation(c)
    inner = a.shape[0] if left else a.shape[1]
    dtype = out.compute_dtype
    bias = aligned(c, 2) if c.has(2) else None

    def store(_at: At, i: Expr, j: Expr, value: Expr) -> None:
        value = value * tirx.const(float(c.attr("alpha")), dtype)
        if bias is not None:
            value = value + bias((i, j)) * tirx.const(float(c.attr("beta")), dtype)
        out.store((i, j), activate(c.b.let(value)))

    contraction = Contraction(
        (), rows, columns, (inner,),
        lambda _at, i, k: a[k[0], i] if left else a[i, k[0]],
        lambda _at, k, j: b[j, k[0]] if right else b[k[0], j],
        store, dtype,
    )  # fmt: skip
    contract(c.b, contraction, "inner" if right else "columns")
    return out
