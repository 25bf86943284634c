"""Ops that read or write elements at indices from another tensor."""

from __future__ import annotations

import numpy as np

from ..axes.indexing import (
    compress,
    gather,
    gather_elements,
    gather_nd,
    one_hot,
    pick_features,
    scatter_elements,
    scatter_nd,
    tensor_scatter,
)
from ..dims import Dim
from ..graph import Node
from ..registry import InferContext, attribute, op
from ..shapes import normalize_axis
from ..traits import Trait
from ..types import Shape, TensorType, Type, tensor
from . import indexing_evaluate
from .shape_values import Array, Arrays, ints_of, numel

READS = (Trait.INJECTIVE, Trait.PICKS)
READ_THROUGH = (*READS, Trait.MOVEMENT)


# ---- gathers -------------------------------------------------------------------------------------


def _indexed(arrays: Arrays) -> tuple[Array, Array] | None:
    """The values of data and indices, where both are known and the indices are ints."""
    indices = ints_of(arrays[1])
    if arrays[0] is None or arrays[1] is None or indices is None:
        return None
    return arrays[0], np.array(indices, np.int64).reshape(arrays[1].shape)


def _gather_value(ctx: InferContext, arrays: Arrays) -> Arrays | None:
    found = _indexed(arrays)
    if found is None:
        return None
    data, indices = found
    axis = normalize_axis(ctx.attr("axis"), data.ndim)
    if not _in_range(indices, data.shape[axis]):
        return None
    return [np.asarray(np.take(data, indices, axis=axis))]


def _in_range(indices: Array, size: int) -> bool:
    return bool(np.all((indices >= -size) & (indices < size)))


@op(
    "Gather", traits=(*READ_THROUGH, Trait.FLOAT_POLYMORPHIC), propagate=_gather_value,
    axes=gather,
)  # fmt: skip
def _gather(ctx: InferContext) -> list[Type]:
    x, indices = ctx.tensor(0), ctx.tensor(1)
    axis = normalize_axis(ctx.attr("axis"), x.rank)
    ctx.require_indices(1, x.dims[axis])
    return [x.with_shape((*x.dims[:axis], *indices.dims, *x.dims[axis + 1 :]))]


def _gather_elements_value(ctx: InferContext, arrays: Arrays) -> Arrays | None:
    found = _indexed(arrays)
    if found is None:
        return None
    data, indices = found
    axis = normalize_axis(ctx.attr("axis"), data.ndim)
    if data.ndim != 1 or not _in_range(indices, data.shape[axis]):
        return None
    return [data[indices]]


@op(
    "GatherElements", traits=READ_THROUGH, propagate=_gather_elements_value,
    evaluate=indexing_evaluate.gather_elements,
    axes=gather_elements,
)  # fmt: skip
def _gather_elements(ctx: InferContext) -> list[Type]:
    x, indices = ctx.tensor(0), ctx.tensor(1)
    axis = normalize_axis(ctx.attr("axis"), x.rank)
    if indices.rank != x.rank:
        raise ctx.error(f"the indices have rank {indices.rank}, the data rank {x.rank}")
    ctx.require_indices(1, x.dims[axis])
    _require_inside(ctx, indices, x, axis)
    return [x.with_shape(indices.dims)]


@op(
    "GatherND", traits=(Trait.PICKS, Trait.MOVEMENT), evaluate=indexing_evaluate.gather_nd,
    axes=gather_nd,
)  # fmt: skip
@op("GatherND", domain="com.microsoft", defaults={"batch_dims": 0}, arity=(2, 2),
    traits=(Trait.PICKS,), evaluate=indexing_evaluate.gather_nd,
    doc="ONNX's GatherND without batch dims.",
    axes=gather_nd,
)  # fmt: skip
def _gather_nd(ctx: InferContext) -> list[Type]:
    x, indices = ctx.tensor(0), ctx.tensor(1)
    batch = int(ctx.attr("batch_dims"))
    depth = _tuple_length(ctx, indices)
    if batch + depth > x.rank or batch >= indices.rank:
        raise ctx.error(f"{depth} indices after {batch} batch dims do not fit {x}")
    for a, b in zip(x.dims[:batch], indices.dims[:batch], strict=True):
        ctx.require_equal(a, b, "data and indices of one batch")
    _require_tuples(ctx, x.dims[batch : batch + depth])
    return [x.with_shape((*indices.dims[:-1], *x.dims[batch + depth :]))]


def _require_tuples(ctx: InferContext, dims: Shape) -> None:
    """Column ``k`` of the indices counts along ``dims[k]``."""
    for k, size in enumerate(dims):
        ctx.require_column(1, k, len(dims), -size, size - 1, f"indices within axis {k} of {size}")


def _tuple_length(ctx: InferContext, indices: TensorType) -> int:
    if not indices.rank or not isinstance(indices.dims[-1], int):
        raise ctx.undetermined(f"the last dimension of the indices {indices} must be known")
    return indices.dims[-1]


@op(
    "ArrayFeatureExtractor", domain="ai.onnx.ml", traits=READS,
    axes=pick_features,
)  # fmt: skip
def _array_feature_extractor(ctx: InferContext) -> list[Type]:
    x, indices = ctx.tensor(0), ctx.tensor(1)
    if x.rank == 0:
        raise ctx.error("the data must not be a scalar")
    ctx.require_values(1, 0, x.dims[-1] - 1, "indices within its last axis")
    lead: Shape = x.dims[:-1] if x.rank > 1 else (1,)
    return [x.with_shape((*lead, numel(indices.dims)))]


def _require_inside(ctx: InferContext, indices: TensorType, x: TensorType, axis: int) -> None:
    """Record that along the other axes there are no more indices than elements."""
    for i, (have, most) in enumerate(zip(indices.dims, x.dims, strict=True)):
        if i != axis:
            ctx.require_at_most(have, most, f"no more indices along axis {i} than elements")


# ---- scatters ------------------------------------------------------------------------------------


def _scatter_elements_value(ctx: InferContext, arrays: Arrays) -> Arrays | None:
    found = _indexed(arrays)
    if found is None or arrays[2] is None or ctx.attr("reduction") not in (None, "none"):
        return None
    data, indices = found
    if data.ndim != 1 or not _in_range(indices, data.shape[0]):
        return None
    return [_written(data, indices, arrays[2])]


def _written(data: Array, indices: Array, updates: Array) -> Array:
    """The vector ``data`` with entries replaced, the last of duplicates staying."""
    out = data.astype(object)
    for i, v in zip(indices.reshape(-1), updates.reshape(-1), strict=True):
        out[i] = v
    return out


def _check_reduction(ctx: InferContext) -> None:
    if ctx.attr("reduction") not in (None, "none", "add", "mul", "min", "max"):
        raise ctx.error(f"reduction {ctx.attr('reduction')!r} is not known")
    if ctx.attr("reduction") not in (None, "none") and ctx.tensor(0).dtype.kind == "s":
        raise ctx.error(f"reduction {ctx.attr('reduction')!r} is not defined for strings")


@op(
    "ScatterElements", propagate=_scatter_elements_value,
    evaluate=indexing_evaluate.scatter_elements,
    axes=scatter_elements,
)  # fmt: skip
def _scatter_elements(ctx: InferContext) -> list[Type]:
    x, indices, updates = (ctx.tensor(i) for i in range(3))
    axis = normalize_axis(ctx.attr("axis"), x.rank)
    _check_reduction(ctx)
    if not x.rank == indices.rank == updates.rank:
        raise ctx.error(f"data, indices and updates differ in rank: {x}, {indices}, {updates}")
    ctx.require_same_shape(indices.dims, updates.dims, "an update for each index")
    ctx.require_indices(1, x.dims[axis])
    _require_inside(ctx, indices, x, axis)
    return [x]


def _scatter_nd_value(ctx: InferContext, arrays: Arrays) -> Arrays | None:
    found = _indexed(arrays)
    if found is None or arrays[2] is None or ctx.attr("reduction") not in (None, "none"):
        return None
    data, indices = found
    if data.ndim != 1 or indices.shape[-1:] != (1,) or not _in_range(indices, data.shape[0]):
        return None
    return [_written(data, indices, arrays[2])]


@op(
    "ScatterND", propagate=_scatter_nd_value, evaluate=indexing_evaluate.scatter_nd,
    axes=scatter_nd,
)  # fmt: skip
def _scatter_nd(ctx: InferContext) -> list[Type]:
    x, indices, updates = (ctx.tensor(i) for i in range(3))
    depth = _tuple_length(ctx, indices)
    _check_reduction(ctx)
    if depth > x.rank or updates.rank != indices.rank - 1 + x.rank - depth:
        raise ctx.error(f"updates {updates} at {indices} do not fit {x}")
    shape = (*indices.dims[:-1], *x.dims[depth:])
    ctx.require_same_shape(updates.dims, shape, "an update for each index")
    _require_tuples(ctx, x.dims[:depth])
    return [x]


@op(
    "TensorScatter",
    axes=tensor_scatter,
)  # fmt: skip
def _tensor_scatter(ctx: InferContext) -> list[Type]:
    cache, update = ctx.tensor(0), ctx.tensor(1)
    axis = normalize_axis(ctx.attr("axis"), cache.rank)
    if axis == 0 or update.rank != cache.rank:
        raise ctx.error(f"update {update} does not fit cache {cache} along axis {axis}")
    if ctx.attr("mode") not in ("linear", "circular"):
        raise ctx.error(f"mode {ctx.attr('mode')!r} is not known")
    capacity, length = cache.dims[axis], update.dims[axis]
    shape = (*cache.dims[:axis], length, *cache.dims[axis + 1 :])
    ctx.require_same_shape(update.dims, shape, "an update that differs in length only")
    ctx.require_at_most(length, capacity, "an update no longer than the cache")
    if ctx.has(2):
        ctx.require_same_shape(ctx.tensor(2).dims, cache.dims[:1], "a place for each of the batch")
        last = capacity - length if ctx.attr("mode") == "linear" else None
        ctx.require_values(2, 0, last, "places in the cache")
    return [cache]


# ---- OneHot --------------------------------------------------------------------------------------


@op(
    "OneHot", evaluate=indexing_evaluate.one_hot,
    axes=one_hot,
)  # fmt: skip
def _one_hot(ctx: InferContext) -> list[Type]:
    indices, values = ctx.tensor(0), ctx.tensor(2)
    axis = normalize_axis(ctx.attr("axis"), indices.rank + 1)
    for d in ctx.tensor(1).dims:
        ctx.require_equal(d, 1, "one depth")
    if ctx.tensor(1).dtype.is_integer:
        ctx.require_values(1, 0, None, "a depth that is not negative")
    else:
        ctx.require_numbers(1, "a depth that is not negative", low=0)
    ctx.require_same_shape(values.dims, (2,), "a value for off and one for on")
    shape = (*indices.dims[:axis], _depth(ctx), *indices.dims[axis:])
    return [TensorType(values.dtype, shape)]


def _depth(ctx: InferContext) -> Dim:
    known = ctx.known(1)
    if known is None:
        return ctx.fresh_dim()
    entry = known.reshape(-1)[0]
    depth: Dim = entry if known.dtype == object else int(entry)
    ctx.require_at_most(0, depth, "a depth that is not negative")
    return depth


# ---- results whose size depends on the data ------------------------------------------------------


def _non_zero_value(_ctx: InferContext, arrays: Arrays) -> Arrays | None:
    entries = ints_of(arrays[0])
    if entries is None or arrays[0] is None or not arrays[0].ndim:
        return None
    return [np.array(np.nonzero(np.array(entries).reshape(arrays[0].shape)), np.int64)]


@op("NonZero", propagate=_non_zero_value)
def _non_zero(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    entries = ints_of(ctx.known(0))
    count = ctx.fresh_dim() if entries is None else int(np.count_nonzero(entries))
    return [tensor("int64", x.rank, count)]


def _evaluate_compress(node: Node, inputs: list[Array]) -> list[Array]:
    x, picks = inputs
    axis = attribute(node, "axis")
    extent = x.size if axis is None else x.shape[axis]
    return [np.compress(picks[:extent], x, axis=axis)]


@op(
    "Compress", traits=READS, evaluate=_evaluate_compress,
    axes=compress,
)  # fmt: skip
def _compress(ctx: InferContext) -> list[Type]:
    """A condition may be shorter than the axis; if it is longer, the rest is ignored."""
    x, axis = ctx.tensor(0), ctx.attr("axis")
    picks = ctx.known(1)
    extent = x.numel if axis is None else x.dims[normalize_axis(axis, x.rank)]
    if picks is not None and (isinstance(extent, int) or not picks.any()):
        count: Dim = int(np.count_nonzero(picks[: extent if isinstance(extent, int) else 0]))
    else:
        count = ctx.fresh_dim()
    if axis is None:
        return [x.with_shape((count,))]
    at = normalize_axis(axis, x.rank)
    return [x.with_shape((*x.dims[:at], count, *x.dims[at + 1 :]))]


def _evaluate_ms_unique(_node: Node, inputs: list[Array]) -> list[Array]:
    _, first, inverse, counts = np.unique(inputs[0], True, True, True)
    order = np.argsort(first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return [inputs[0][first[order]], rank[inverse.reshape(-1)], counts[order]]


@op("Unique", domain="com.microsoft", traits=(Trait.HOST,), evaluate=_evaluate_ms_unique,
    arity=(1, 1), doc="The distinct elements of a vector in order of their first occurrence, for "
    "each element the index of its value, and how often each value occurs.")  # fmt: skip
def _ms_unique(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    count = ctx.fresh_dim()
    return [x.with_shape((count,)), tensor("int64", *x.dims), tensor("int64", count)]


@op("Unique", traits=(Trait.HOST,))
def _unique(ctx: InferContext) -> list[Type]:
    x, axis = ctx.tensor(0), ctx.attr("axis")
    count = ctx.fresh_dim()
    if axis is None:
        shape: Shape = (count,)
        total = x.numel
    else:
        at = normalize_axis(axis, x.rank)
        shape, total = (*x.dims[:at], count, *x.dims[at + 1 :]), x.dims[at]
    whole = [tensor("int64", n) for n in (count, total, count)]
    return [x.with_shape(shape), *whole]
