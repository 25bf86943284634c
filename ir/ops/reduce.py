"""Type inference of reductions over axes: ``Reduce*``, ``ArgMax``, ``ArgMin``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..axes.map import Combine
from ..axes.reduce import Reduction, arg_reduction
from ..dims import dim_min
from ..registry import InferContext, op
from ..shapes import normalize_axes, normalize_axis
from ..traits import Trait
from ..types import Shape, TensorType, Type, tensor
from .shape_values import numel

REDUCTIONS = (
    "ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare",
)  # fmt: skip


def reduced_axes(
    rank: int, axes: np.ndarray | None, given: bool, noop_with_empty_axes: bool
) -> tuple[int, ...]:
    """The axes that a ``Reduce*`` reduces, ascending.

    ``axes`` is the value of its second input, and ``given`` whether it has one. Raises
    ``ValueError`` for axes out of range or named twice.
    """
    if not given or axes is None or axes.size == 0:
        return () if noop_with_empty_axes else tuple(range(rank))
    return tuple(sorted(normalize_axes(axes.reshape(-1).tolist(), rank)))


def static_axes(ctx: Any, rank: int) -> tuple[int, ...] | None:
    """The axes of a ``Reduce*`` node (an infer or lower context), or None until it runs."""
    known = ctx.known(1)
    if known is None and ctx.has(1) and _axes_shape(ctx) == (0,):
        known = np.zeros(0, np.int64)
    if known is None and ctx.has(1):
        return None
    return reduced_axes(rank, known, ctx.has(1), bool(ctx.attr("noop_with_empty_axes")))


def _axes_shape(ctx: Any) -> Shape | None:
    t = ctx.inputs[1] if isinstance(ctx, InferContext) else ctx.input_types[1]
    return t.shape if isinstance(t, TensorType) else None


def reduced_shape(shape: Shape, axes: Sequence[int], keepdims: bool) -> Shape:
    """``shape`` with ``axes`` set to 1 or removed."""
    if keepdims:
        return tuple(1 if i in axes else d for i, d in enumerate(shape))
    return tuple(d for i, d in enumerate(shape) if i not in axes)


def _unknown_shape(ctx: InferContext, rank: int, keepdims: bool) -> Shape:
    """The shape where the axes are only known at run time."""
    if keepdims:
        return tuple(ctx.fresh_dim() for _ in range(rank))
    shape = ctx.tensor(1).shape
    count = shape[0] if shape else None
    if not isinstance(count, int):
        raise ctx.error("needs to know how many axes it removes")
    return tuple(ctx.fresh_dim() for _ in range(rank - count))


def _propagate_reduce(
    ctx: InferContext, arrays: list[np.ndarray | None]
) -> list[np.ndarray | None] | None:
    """Sums and products of known shapes."""
    data = arrays[0]
    if data is None or data.dtype.kind not in "iuO":
        return None
    axes = static_axes(ctx, data.ndim)
    if axes is None:
        return None
    reduce = np.sum if ctx.node.op == "ReduceSum" else np.prod
    if data.size == 0 or not axes:
        return [data] if not axes else None
    result: Any = reduce(data, axis=axes, keepdims=bool(ctx.attr("keepdims")))
    return [np.asarray(result, dtype=data.dtype)]


_PLAIN = (Trait.REDUCTION, Trait.SINGLE_PASS, Trait.FLOAT_POLYMORPHIC)
_SUM = (*_PLAIN, Trait.UNORDERED_SUM, Trait.KEEPS_NONNEGATIVE)


@op(
    "ReduceSum", traits=_SUM, propagate=_propagate_reduce,
    homogeneous=((0,),), axes=Reduction(Combine.SUM),
)  # fmt: skip
@op(
    "ReduceProd", traits=(Trait.REDUCTION,), propagate=_propagate_reduce,
    axes=Reduction(Combine.PRODUCT),
)  # fmt: skip
@op(
    "ReduceMean", traits=_SUM,
    homogeneous=((0,),), axes=Reduction(Combine.MEAN),
)  # fmt: skip
@op("ReduceMax", traits=_PLAIN, homogeneous=((0,),), axes=Reduction(Combine.MAX))
@op("ReduceMin", traits=_PLAIN, homogeneous=((0,),), axes=Reduction(Combine.MIN))
@op(
    "ReduceL1", "ReduceSumSquare", traits=(Trait.REDUCTION, Trait.NONNEGATIVE),
    axes=Reduction(Combine.SUM),
)  # fmt: skip
@op("ReduceL2", traits=(Trait.REDUCTION, Trait.NONNEGATIVE), homogeneous=((0,),), axes=Reduction())
@op("ReduceLogSum", "ReduceLogSumExp", traits=(Trait.REDUCTION,), axes=Reduction())
def _infer_reduce(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    keepdims = bool(ctx.attr("keepdims"))
    if x.shape is None:
        raise ctx.undetermined("the rank of its input must be known")
    axes = static_axes(ctx, x.rank)
    if axes is not None:
        return [x.with_shape(reduced_shape(x.dims, axes, keepdims))]
    ctx.require_axes(1, x.rank, "axes of its input, none of them twice")
    return [x.with_shape(_unknown_shape(ctx, x.rank, keepdims))]


@op(
    "ArgMax", "ArgMin", traits=(Trait.REDUCTION,),
    axes=arg_reduction,
)  # fmt: skip
def _infer_arg(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    axis = normalize_axis(ctx.attr("axis"), x.rank)
    results = numel((*x.dims[:axis], *x.dims[axis + 1 :]))
    why = f"elements to choose from along axis {axis}"
    ctx.require_at_most(dim_min(1, results), x.dims[axis], why)
    return [tensor("int64", *reduced_shape(x.dims, (axis,), bool(ctx.attr("keepdims"))))]
