"""Type inference of matrix products and determinants."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..axes.product import determinant, product
from ..graph import Node
from ..registry import InferContext, attribute, op
from ..traits import Trait
from ..types import Shape, TensorType, Type
from . import flops


def matmul_shape(ctx: InferContext, a: Shape, b: Shape) -> Shape:
    """The shape of NumPy's ``matmul``; raises ``InferenceError`` where the operands do not fit."""
    if not a or not b:
        raise ctx.error("a matrix product takes no scalars")
    left = a if len(a) > 1 else (1, *a)
    right = b if len(b) > 1 else (*b, 1)
    ctx.require_equal(left[-1], right[-2], "operands with equal inner dimensions")
    lead = ctx.broadcast(left[:-2], right[:-2])
    rows = left[-2:-1] if len(a) > 1 else ()
    columns = right[-1:] if len(b) > 1 else ()
    return (*lead, *rows, *columns)


def _same_dtype(ctx: InferContext) -> TensorType:
    first = ctx.tensor(0)
    for i in range(1, len(ctx.inputs)):
        if ctx.has(i) and ctx.tensor(i).dtype != first.dtype:
            raise ctx.error(f"inputs have types {first.dtype} and {ctx.tensor(i).dtype}")
    return first


PRODUCT = (Trait.ANCHOR, Trait.CONTRACTION, Trait.UNORDERED_SUM, Trait.FLOAT_POLYMORPHIC)
"""Traits of products of floats."""


def _summed_axis(_node: Node, index: int) -> tuple[int, ...]:
    return ((-1,), (-2,))[index] if index < 2 else ()


@op(
    "MatMul", traits=PRODUCT, flops=flops.matmul, summed_axes=_summed_axis,
    homogeneous=((1,),), axes=product(),
)  # fmt: skip
def _infer_matmul(ctx: InferContext) -> list[Type]:
    a, b = _same_dtype(ctx), ctx.tensor(1)
    return [a.with_shape(matmul_shape(ctx, a.dims, b.dims))]


def _summed_axis_of_gemm(node: Node, index: int) -> tuple[int, ...]:
    if index > 1:
        return ()
    transposed = bool(attribute(node, "transA" if index == 0 else "transB"))
    return (0,) if (index == 0) == transposed else (1,)


@op(
    "Gemm", traits=PRODUCT, flops=flops.matmul, summed_axes=_summed_axis_of_gemm,
    homogeneous=((1, 2),), axes=product(addend=2),
)  # fmt: skip
def _infer_gemm(ctx: InferContext) -> list[Type]:
    a, b = _same_dtype(ctx), ctx.tensor(1)
    if a.rank != 2 or b.rank != 2:
        raise ctx.error(f"multiplies matrices, not {a} and {b}")
    m, k = reversed(a.dims) if ctx.attr("transA") else a.dims
    inner, n = reversed(b.dims) if ctx.attr("transB") else b.dims
    ctx.require_equal(k, inner, "operands with equal inner dimensions")
    if ctx.has(2):
        ctx.broadcast_to(ctx.tensor(2).dims, (m, n), "a bias")
    return [a.with_shape((m, n))]


def _evaluate_fused_matmul(node: Node, inputs: list[Any]) -> list[Any]:
    a, b = (
        np.swapaxes(x, -1, -2) if attribute(node, swap) and x.ndim > 1 else x
        for x, swap in zip(inputs, ("transA", "transB"), strict=True)
    )
    work = np.float64 if a.dtype.itemsize > 4 else np.float32
    product = np.matmul(a.astype(work), b.astype(work)) * work(attribute(node, "alpha"))
    return [product.astype(a.dtype)]


@op(
    "FusedMatMul",
    domain="com.microsoft",
    traits=(Trait.ANCHOR, Trait.CONTRACTION),
    flops=flops.matmul,
    evaluate=_evaluate_fused_matmul,
    defaults={"alpha": 1.0, "transA": 0, "transB": 0, "transBatchA": 0, "transBatchB": 0},
    arity=(2, 2),
    doc="``alpha * A' @ B'``, where the last two axes of either may be swapped.",
    axes=product(),
)  # fmt: skip
def _infer_fused_matmul(ctx: InferContext) -> list[Type]:
    a, b = _same_dtype(ctx), ctx.tensor(1)
    if ctx.attr("transBatchA") or ctx.attr("transBatchB"):
        raise ctx.error("transposed batch axes are not supported")
    left = _swapped(a.dims) if ctx.attr("transA") else a.dims
    right = _swapped(b.dims) if ctx.attr("transB") else b.dims
    return [a.with_shape(matmul_shape(ctx, left, right))]


def _swapped(shape: Shape) -> Shape:
    return shape if len(shape) < 2 else (*shape[:-2], shape[-1], shape[-2])


@op(
    "Det",
    axes=determinant,
)  # fmt: skip
def _infer_det(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    if x.rank < 2:
        raise ctx.error(f"takes square matrices, not {x}")
    ctx.require_equal(x.dims[-2], x.dims[-1], "square matrices")
    return [x.with_shape(x.dims[:-2])]
