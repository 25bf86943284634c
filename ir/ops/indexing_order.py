"""Ops along the order of an axis: TopK, CumSum, CumProd."""

from __future__ import annotations

from ..axes.reduce import along_axis
from ..registry import InferContext, op
from ..shapes import normalize_axis
from ..traits import Trait
from ..types import Type, tensor
from .shape_values import dims_of, int_of


@op(
    "TopK",
    axes=along_axis,
)  # fmt: skip
def _top_k(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    axis = normalize_axis(ctx.attr("axis"), x.rank)
    known, size = dims_of(ctx.known(1)), x.dims[axis]
    ctx.require_same_shape(ctx.tensor(1).dims, (1,), "one k")
    k = known[0] if known else ctx.fresh_dim()
    ctx.require_values(1, 0, size, f"a k between 0 and the elements of axis {axis}")
    ctx.require_at_most(k, size, f"no more than the elements of axis {axis}")
    shape = (*x.dims[:axis], k, *x.dims[axis + 1 :])
    return [x.with_shape(shape), tensor("int64", *shape)]


@op(
    "CumSum", traits=(Trait.ANCHOR,),
    axes=along_axis,
)  # fmt: skip
@op(
    "CumProd",
    axes=along_axis,
)  # fmt: skip
def _cumulative(ctx: InferContext) -> list[Type]:
    x, axis = ctx.tensor(0), int_of(ctx.known(1))
    if axis is not None:
        normalize_axis(axis, x.rank)
    else:
        ctx.require_values(1, -x.rank, x.rank - 1, "an axis of its input")
    return [x]
