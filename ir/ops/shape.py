"""Ops that read or change the shape of a tensor and leave its elements in order."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np

from ...errors import OperandError
from ..axes.movement import expand
from ..axes.view import view
from ..dims import Dim, SymExpr, known_equal
from ..registry import InferContext, op
from ..shapes import normalize_axes
from ..traits import Trait
from ..types import Shape, TensorType, Type, tensor
from .shape_values import (
    Arrays,
    broadcasted,
    dim_array,
    dims_of,
    inferred_shape,
    ints_of,
    numel,
    reshaped,
)

VIEW = (Trait.INJECTIVE, Trait.PICKS, Trait.VIEW)
"""Traits of ops whose output is the same memory in another shape."""


# ---- Shape, Size ---------------------------------------------------------------------------------


def shape_window(start: int, end: int | None, rank: int) -> slice:
    """The dims that ``Shape`` with these attributes returns."""
    low, high, _ = slice(start, end).indices(rank)
    return slice(low, max(low, high))


def _shape_dims(ctx: InferContext) -> Shape:
    dims = ctx.tensor(0).dims
    return dims[shape_window(ctx.attr("start") or 0, ctx.attr("end"), len(dims))]


def _shape_value(ctx: InferContext, _arrays: Arrays) -> Arrays:
    return [dim_array(_shape_dims(ctx))]


@op("Shape", propagate=_shape_value, traits=(Trait.SHAPE_ONLY,))
def _shape(ctx: InferContext) -> list[Type]:
    return [tensor("int64", len(_shape_dims(ctx)))]


def _size_value(ctx: InferContext, _arrays: Arrays) -> Arrays:
    return [dim_array([ctx.tensor(0).numel], ())]


@op("Size", propagate=_size_value, traits=(Trait.SHAPE_ONLY,))
def _size(ctx: InferContext) -> list[Type]:
    ctx.tensor(0).dims  # noqa: B018  (the rank must be known)
    return [tensor("int64")]


# ---- Reshape -------------------------------------------------------------------------------------


def reshape_shape(shape: Shape, target: Sequence[Dim], allowzero: bool = False) -> Shape:
    """The output shape of ``Reshape``, 0 and -1 resolved exactly.

    Raises ``ValueError`` where the target does not fit.
    """
    out = [_copied(shape, i) if d == 0 and not allowzero else d for i, d in enumerate(target)]
    if any(isinstance(d, int) and d < -1 for d in out) or out.count(-1) > 1:
        raise OperandError(f"the target shape [{_text(target)}] is not valid")
    if -1 in out:
        rest = [d for d in out if d != -1]
        out[out.index(-1)] = _missing(shape, rest, target)
    elif _is_int(shape) and _is_int(out) and numel(shape) != numel(tuple(out)):
        raise OperandError(f"shape [{_text(shape)}] does not reshape to [{_text(target)}]")
    return tuple(out)


def _copied(shape: Shape, i: int) -> Dim:
    if i >= len(shape):
        raise OperandError(f"dimension {i} of the target is 0, the input has rank {len(shape)}")
    return shape[i]


def _missing(shape: Shape, rest: Sequence[Dim], target: Sequence[Dim]) -> Dim:
    """The dim for -1: the number of elements of ``shape`` divided by that of ``rest``."""
    above, below = list(shape), []
    for d in rest:
        if d in above and d != 0:
            above.remove(d)
        else:
            below.append(d)
    total, part = numel(tuple(above)), numel(tuple(below))
    if part == 0 or (isinstance(total, int) and isinstance(part, int) and total % part):
        raise OperandError(f"shape [{_text(shape)}] does not reshape to [{_text(target)}]")
    return total // part


def _is_int(shape: Sequence[Dim]) -> bool:
    return all(isinstance(d, int) for d in shape)


def _text(shape: Sequence[Dim]) -> str:
    return ", ".join(map(str, shape))


def _length(ctx: InferContext, i: int) -> int:
    """The number of elements of 1-D input ``i``, which must be static (it gives a rank)."""
    dims = ctx.tensor(i).dims
    count = numel(dims)
    if len(dims) > 1 or not isinstance(count, int):
        raise ctx.undetermined(f"input {i} decides the result's rank, so its length must be known")
    return count


@op(
    "Reshape", propagate=reshaped, traits=VIEW,
    axes=view,
)  # fmt: skip
def _reshape(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    target = dims_of(ctx.known(1))
    if target is not None:
        return [x.with_shape(_reshaped_to(ctx, x.dims, target))]
    rank = _length(ctx, 1)
    ctx.require_values(1, -1, None, "a target of sizes, or -1")
    shape: Shape = tuple(ctx.fresh_dim() for _ in range(rank))
    ctx.require_equal(x.numel, numel(shape), "a target of as many elements")
    return [x.with_shape(shape)]


def _reshaped_to(ctx: InferContext, shape: Shape, target: Sequence[Dim]) -> Shape:
    out = reshape_shape(shape, target, bool(ctx.attr("allowzero")))
    for i, d in enumerate(target):
        if isinstance(d, SymExpr):
            ctx.require_at_most(0, d, "a target of sizes that are not negative")
            if not ctx.attr("allowzero"):
                _require_no_copy(ctx, shape, i, d)
    if -1 not in target:
        ctx.require_equal(numel(shape), numel(out), "a target of as many elements")
        return out
    rest = numel(tuple(d for i, d in enumerate(out) if target[i] != -1))
    ctx.require_multiple(numel(shape), rest, "a number of elements that fits the target")
    return out


def _require_no_copy(ctx: InferContext, shape: Shape, i: int, size: Dim) -> None:
    """Record that entry ``i`` of a target is 0 only if size ``i`` is, which it would copy."""
    copied = shape[i] if i < len(shape) else 1
    if known_equal(copied, size):
        return
    why = f"a target of no 0 at {i}, which stands for size {i} of the data"
    if isinstance(copied, int) and copied > 0:
        ctx.require_at_most(1, size, why)
    else:
        ctx.require_at_most(copied, copied * size, why)


@op(
    "Flatten", propagate=reshaped, traits=VIEW,
    axes=view,
)  # fmt: skip
def _flatten(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    axis = int(ctx.attr("axis"))
    if not -x.rank <= axis <= x.rank:
        raise ctx.error(f"axis {axis} is out of range for rank {x.rank}")
    split = axis + x.rank if axis < 0 else axis
    return [x.with_shape((numel(x.dims[:split]), numel(x.dims[split:])))]


# ---- Squeeze, Unsqueeze --------------------------------------------------------------------------


@op(
    "Squeeze", propagate=reshaped, traits=VIEW,
    axes=view,
)  # fmt: skip
def _squeeze(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    if not ctx.has(1):
        return [x.with_shape(_squeeze_all(ctx, x))]
    axes = ints_of(ctx.known(1))
    if axes is None:
        return [x.with_shape(_squeeze_unknown(ctx, x))]
    gone = normalize_axes(axes, x.rank)
    for a in gone:
        ctx.require_equal(x.dims[a], 1, f"axis {a} of 1 element")
    return [x.with_shape(tuple(d for i, d in enumerate(x.dims) if i not in gone))]


def _squeeze_all(ctx: InferContext, x: TensorType) -> Shape:
    if not x.is_static:
        raise ctx.undetermined(
            f"without axes the result's rank depends on which of [{_text(x.dims)}] are 1; "
            "give these dimensions sizes"
        )
    return tuple(d for d in x.dims if d != 1)


def _squeeze_unknown(ctx: InferContext, x: TensorType) -> Shape:
    count = _length(ctx, 1)
    kept = tuple(d for d in x.dims if d != 1)
    if x.is_static and len(kept) == x.rank - count:
        return kept
    if count > x.rank:
        raise ctx.error(f"{count} axes are more than rank {x.rank}")
    ctx.require_axes(1, x.rank, "axes of its input, none of them twice")
    shape: Shape = tuple(ctx.fresh_dim() for _ in range(x.rank - count))
    ctx.require_equal(x.numel, numel(shape), "axes of one element")
    return shape


def unsqueeze_shape(shape: Shape, axes: Sequence[int]) -> Shape:
    """``shape`` with ones inserted, which are at ``axes`` of the result."""
    rank = len(shape) + len(axes)
    ones = normalize_axes(axes, rank)
    rest = iter(shape)
    return tuple(1 if i in ones else next(rest) for i in range(rank))


@op(
    "Unsqueeze", propagate=reshaped, traits=VIEW,
    axes=view,
)  # fmt: skip
@op("ExpandDims", domain="com.microsoft", propagate=reshaped, traits=VIEW, arity=(2, 2),
    evaluate=lambda node, inputs: [np.expand_dims(inputs[0], int(inputs[1].reshape(())))],
    doc="Insert a dimension of 1 so that it stands at ``axis`` (a scalar).",
    axes=view,
)  # fmt: skip
def _unsqueeze(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    axes = ints_of(ctx.known(1))
    if axes is not None:
        return [x.with_shape(unsqueeze_shape(x.dims, axes))]
    rank = x.rank + _length(ctx, 1)
    if x.rank == 0:
        return [x.with_shape((1,) * rank)]
    ctx.require_axes(1, rank, "axes of its result, none of them twice")
    shape: Shape = tuple(ctx.fresh_dim() for _ in range(rank))
    ctx.require_equal(x.numel, numel(shape), "axes that differ")
    return [x.with_shape(shape)]


# ---- Expand, ConstantOfShape ---------------------------------------------------------------------


@op(
    "Expand", propagate=broadcasted, traits=(Trait.INJECTIVE, Trait.PICKS, Trait.MOVEMENT),
    axes=expand,
)  # fmt: skip
def _expand(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    target = dims_of(ctx.known(1))
    if target is not None:
        for d in target:
            ctx.require_at_most(0, d, "a target of sizes that are not negative")
        return [x.with_shape(ctx.broadcast(x.dims, tuple(target)))]
    length = _length(ctx, 1)
    rank = max(x.rank, length)
    padded = (1,) * (rank - x.rank) + x.dims
    shape = tuple(_expanded_dim(ctx, d) for d in padded)
    ctx.broadcast_to(x.dims, shape, "an input")
    for k, d in enumerate(padded[rank - length :]):
        if _stays(d):
            why = f"a target that broadcasts with {d} elements of axis {k + rank - length}"
            ctx.require_column(1, k, length, d, d, why, or_one=True, at=0)
    return [x.with_shape(shape)]


def _expanded_dim(ctx: InferContext, d: Dim) -> Dim:
    return d if _stays(d) else ctx.fresh_dim()


def _stays(d: Dim) -> bool:
    """Is a dim that broadcasts with the target's always the dim of the result?"""
    return isinstance(d, int) and d > 1


def _constant_of_shape_value(ctx: InferContext, _arrays: Arrays) -> Arrays | None:
    shape = inferred_shape(ctx)
    return None if shape is None else [np.full(shape, fill_value(ctx.attr("value")))]


def fill_value(value: np.ndarray | None) -> np.generic:
    """The scalar that ``ConstantOfShape`` fills with (default: float32 zero)."""
    return np.float32(0) if value is None else np.asarray(value).reshape(-1)[0]


@op("ConstantOfShape", propagate=_constant_of_shape_value, traits=(Trait.ROUNDS_ONCE,))
def _constant_of_shape(ctx: InferContext) -> list[Type]:
    from ..types import from_numpy_dtype

    value = ctx.attr("value")
    if value is not None and prod(value.shape) != 1:
        raise ctx.error(f"value must have one element, not {prod(value.shape)}")
    element = from_numpy_dtype(np.float32().dtype if value is None else value.dtype)
    target = dims_of(ctx.known(0))
    if target is None:
        target = [ctx.fresh_dim() for _ in range(_length(ctx, 0))]
    for d in target:
        ctx.require_at_most(0, d, "a shape that is not negative")
    return [TensorType(element, tuple(target))]


__all__ = [
    "fill_value", "reshape_shape", "shape_window", "unsqueeze_shape",
]  # fmt: skip
