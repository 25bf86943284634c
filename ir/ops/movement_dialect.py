"""Dialect ops for movements whose parameters are known as dims, without shape tensors at run time.

Passes replace the ONNX ops of these names once inference knows the parameters symbolically.
Attributes are dims; the interpreter passes a node to :attr:`OpSpec.evaluate` with ints as
attributes, after the symbols got the sizes of the run.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..axes.movement import expand, kiln_slice
from ..axes.view import view
from ..dims import Dim
from ..graph import Node
from ..onnx_types import element_type
from ..registry import InferContext, op
from ..shapes import broadcast_to
from ..traits import Trait
from ..types import Shape, TensorType, Type, to_numpy_dtype
from .shape_values import (
    Arrays,
    broadcasted,
    dim_array,
    inferred_shape,
    ints_of,
    numel,
    reshaped,
)

DOMAIN = "kiln"
MOVED = (Trait.INJECTIVE, Trait.PICKS, Trait.FLOAT_POLYMORPHIC)


def _dims_attr(ctx: InferContext, name: str) -> Shape:
    value = ctx.attr(name)
    if not isinstance(value, tuple):
        raise ctx.error(f"attribute {name!r} must be a tuple of dims, not {value!r}")
    return value


def _ints_attr(node: Node, name: str) -> tuple[int, ...]:
    return tuple(int(d) for d in node.attrs[name])  # type: ignore[union-attr]


# ---- kiln.Reshape, kiln.Expand -------------------------------------------------------------------


@op(
    "Reshape", domain=DOMAIN, traits=(*MOVED, Trait.VIEW), propagate=reshaped,
    arity=(1, 1), dim_attributes=("shape",),
    evaluate=lambda node, inputs: [inputs[0].reshape(_ints_attr(node, "shape"))],
    doc="The elements of the input in the shape ``shape`` (dims; as many elements, no 0 or -1 "
    "with a special meaning).",
    axes=view,
)  # fmt: skip
def _reshape(ctx: InferContext) -> list[Type]:
    x, shape = ctx.tensor(0), _dims_attr(ctx, "shape")
    have, want = x.numel, numel(shape)
    if isinstance(have, int) and isinstance(want, int) and have != want:
        raise ctx.error(f"{x} does not reshape to ({', '.join(map(str, shape))})")
    return [TensorType(x.dtype, tuple(shape))]


@op(
    "Expand", domain=DOMAIN, traits=(*MOVED, Trait.MOVEMENT), propagate=broadcasted, arity=(1, 1),
    evaluate=lambda node, inputs: [np.broadcast_to(inputs[0], _ints_attr(node, "shape")).copy()],
    dim_attributes=("shape",), doc="The input broadcast to exactly ``shape`` (dims).",
    axes=expand,
)  # fmt: skip
def _expand(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    return [x.with_shape(broadcast_to(x.dims, _dims_attr(ctx, "shape")))]


# ---- kiln.Slice ----------------------------------------------------------------------------------


def _evaluate_slice(node: Node, inputs: list[Any]) -> list[Any]:
    starts, steps = _ints_attr(node, "starts"), _ints_attr(node, "steps")
    grids = [
        start + step * np.arange(extent)
        for start, step, extent in zip(starts, steps, _ints_attr(node, "shape"), strict=True)
    ]
    return [inputs[0][np.ix_(*grids)] if grids else inputs[0]]


def _slice_value(ctx: InferContext, arrays: Arrays) -> Arrays | None:
    starts, steps = (ints_of(dim_array(ctx.attr(name))) for name in ("starts", "steps"))
    shape = inferred_shape(ctx)
    if arrays[0] is None or starts is None or steps is None or shape is None:
        return None
    grids = [s + d * np.arange(n) for s, d, n in zip(starts, steps, shape, strict=True)]
    return [arrays[0][np.ix_(*grids)] if grids else arrays[0]]


@op(
    "Slice", domain=DOMAIN, traits=(*MOVED, Trait.MOVEMENT), evaluate=_evaluate_slice,
    arity=(1, 1), propagate=_slice_value, dim_attributes=("starts", "steps", "shape"),
    doc="Element ``i`` along each axis is element ``starts + i*steps`` of the input; ``shape`` is "
    "the shape of the result. All three are dims, one for each axis, and in bounds: nothing is "
    "clamped, and negative starts do not count from the end. A step may be negative.",
    axes=kiln_slice,
)  # fmt: skip
def _slice(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    parts = [_dims_attr(ctx, name) for name in ("starts", "steps", "shape")]
    if any(len(p) != x.rank for p in parts):
        raise ctx.error(f"starts, steps and shape must have {x.rank} entries each")
    for start, step, extent, size in zip(*parts, x.dims, strict=True):
        last = start + (extent - 1) * step
        if _outside(start, last, extent, size):
            raise ctx.error(f"elements {start} to {last} leave a dimension of {size}")
    return [x.with_shape(parts[2])]


def _outside(start: Dim, last: Dim, extent: Dim, size: Dim) -> bool:
    """True where a static slice reads out of bounds."""
    if not all(isinstance(d, int) for d in (start, last, extent, size)):
        return False
    return extent != 0 and not (0 <= start < size and 0 <= last < size)


# ---- kiln.ShapeValue -----------------------------------------------------------------------------


def _evaluate_shape_value(node: Node, _inputs: list[Any]) -> list[Any]:
    element = element_type(node.attrs.get("dtype", "int64"))  # type: ignore[arg-type]
    values = np.array(_ints_attr(node, "dims"), to_numpy_dtype(element))
    return [values.reshape(_ints_attr(node, "shape"))]


def _shape_value_value(ctx: InferContext, _arrays: Arrays) -> Arrays:
    return [dim_array(ctx.attr("dims"), tuple(ctx.attr("shape")))]


@op(
    "ShapeValue", domain=DOMAIN, evaluate=_evaluate_shape_value, propagate=_shape_value_value,
    arity=(0, 0), defaults={"dtype": "int64"}, traits=(Trait.SHAPE_ONLY, Trait.SOURCE),
    doc="An integer tensor of element type ``dtype`` (default int64) and static shape ``shape`` "
    "whose elements are ``dims``: what is left of a chain that computes with shapes.",
)  # fmt: skip
def _shape_value(ctx: InferContext) -> list[Type]:
    shape, dims = _dims_attr(ctx, "shape"), _dims_attr(ctx, "dims")
    if not all(isinstance(d, int) for d in shape) or numel(shape) != len(dims):
        raise ctx.error(f"{len(dims)} dims do not fill the shape {shape}")
    return [TensorType(element_type(ctx.attr("dtype")), shape)]
