"""Ops that move elements: the output has input elements at other indices."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..axes.movement import (
    concat,
    depth_to_space,
    reverse_sequence,
    space_to_depth,
    split,
    tile,
    transpose,
    triangle,
)
from ..dims import Dim, ceil_div
from ..graph import Node
from ..registry import InferContext, op
from ..shapes import normalize_axes, normalize_axis
from ..traits import Trait
from ..types import Shape, TensorType, Type
from .shape_values import Array, Arrays, dims_of, inferred_shape, ints_of, rearranged

MOVES = (Trait.INJECTIVE,)
PICKS = (*MOVES, Trait.PICKS)
READ_THROUGH = (*PICKS, Trait.MOVEMENT)


# ---- Transpose -----------------------------------------------------------------------------------


def permutation(ctx: InferContext) -> tuple[int, ...]:
    """The ``perm`` of a ``Transpose``; raises where it is not a permutation of the axes."""
    rank = ctx.tensor(0).rank
    perm = ctx.attr("perm")
    if perm is None:
        return tuple(reversed(range(rank)))
    axes = normalize_axes(perm, rank)
    if len(axes) != rank:
        raise ctx.error(f"perm {tuple(perm)} does not fit rank {rank}")
    return axes


@op(
    "Transpose", traits=(*READ_THROUGH, Trait.FLOAT_POLYMORPHIC),
    propagate=rearranged(lambda ctx, a: np.transpose(a, permutation(ctx))),
    axes=transpose,
)  # fmt: skip
def _transpose(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    return [x.with_shape(tuple(x.dims[i] for i in permutation(ctx)))]


# ---- Tile ----------------------------------------------------------------------------------------


def _tile_value(ctx: InferContext, arrays: Arrays) -> Arrays | None:
    repeats = ints_of(arrays[1])
    if arrays[0] is None or repeats is None or inferred_shape(ctx) is None:
        return None
    return [np.tile(arrays[0], repeats)]


@op(
    "Tile", traits=READ_THROUGH, propagate=_tile_value,
    axes=tile,
)  # fmt: skip
def _tile(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    repeats = dims_of(ctx.known(1))
    if repeats is None:
        ctx.require_same_shape(ctx.tensor(1).dims, (x.rank,), "repeats for each axis")
        ctx.require_values(1, 0, None, "repeats that are not negative")
        return [x.with_shape(tuple(0 if d == 0 else ctx.fresh_dim() for d in x.dims))]
    if len(repeats) != x.rank:
        raise ctx.error(f"{len(repeats)} repeats do not fit rank {x.rank}")
    for repeat in repeats:
        ctx.require_at_most(0, repeat, "repeats that are not negative")
    return [x.with_shape(tuple(d * r for d, r in zip(x.dims, repeats, strict=True)))]


# ---- Concat --------------------------------------------------------------------------------------


def _concat_value(ctx: InferContext, arrays: Arrays) -> Arrays | None:
    known = [a for a in arrays if a is not None]
    if len(known) != len(arrays) or not known or not known[0].ndim:
        return None
    return [np.concatenate(known, axis=int(ctx.attr("axis")))]


@op(
    "Concat", traits=(*MOVES, Trait.SELECTS, Trait.JOIN, Trait.FLOAT_POLYMORPHIC),
    propagate=_concat_value,
    axes=concat,
)  # fmt: skip
def _concat(ctx: InferContext) -> list[Type]:
    types = [ctx.tensor(i) for i in range(len(ctx.inputs))]
    first = types[0]
    axis = normalize_axis(ctx.attr("axis"), first.rank)
    for t in types[1:]:
        if t.rank != first.rank or t.dtype != first.dtype:
            raise ctx.error(f"{t} cannot be joined to {first}")
    out: list[Dim] = []
    for i in range(first.rank):
        dims = [t.dims[i] for t in types]
        out.append(sum(dims) if i == axis else _common_dim(ctx, dims))
    return [first.with_shape(tuple(out))]


def _common_dim(ctx: InferContext, dims: Sequence[Dim]) -> Dim:
    """The size that all of ``dims`` are equal to: an int if one of them is."""
    known = {d for d in dims if isinstance(d, int)}
    if len(known) > 1:
        raise ctx.error(f"dimensions {', '.join(map(str, sorted(known)))} differ")
    size = known.pop() if known else dims[0]
    for d in dims:
        ctx.require_equal(d, size, "inputs that differ along its axis only")
    return size


# ---- Split ---------------------------------------------------------------------------------------


def _split_value(ctx: InferContext, arrays: Arrays) -> Arrays | None:
    shapes = [inferred_shape(ctx, i) for i in range(len(ctx.node.outputs))]
    known = [s for s in shapes if s is not None]
    if arrays[0] is None or len(known) != len(shapes):
        return None
    axis = normalize_axis(ctx.attr("axis"), arrays[0].ndim)
    ends = np.cumsum([s[axis] for s in known])
    return list(np.split(arrays[0], ends[:-1], axis=axis))


@op(
    "Split", traits=PICKS, propagate=_split_value,
    axes=split,
)  # fmt: skip
def _split(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    axis = normalize_axis(ctx.attr("axis"), x.rank)
    return [x.with_shape(_with(x.dims, axis, size)) for size in _split_sizes(ctx, x.dims[axis])]


def _with(shape: Shape, axis: int, size: Dim) -> Shape:
    return (*shape[:axis], size, *shape[axis + 1 :])


def _split_sizes(ctx: InferContext, total: Dim) -> list[Dim]:
    if not ctx.has(1):
        count = int(ctx.attr("num_outputs") or len(ctx.node.outputs))
        if ctx.attr("num_outputs") is None:
            ctx.require_multiple(total, count, f"an axis that splits into {count} equal parts")
            return [total // count] * count
        chunk = ceil_div(total, count)
        last = total - chunk * (count - 1)
        if isinstance(last, int) and last < 0:
            raise ctx.error(f"{total} elements do not split into {count} parts")
        ctx.require_at_most(0, last, f"an axis that splits into {count} parts")
        return [chunk] * (count - 1) + [last]
    sizes = dims_of(ctx.known(1))
    if sizes is None:
        parts = len(ctx.node.outputs)
        ctx.require_same_shape(ctx.tensor(1).dims, (parts,), "a size for each part")
        ctx.require_values(1, 0, total, "parts that add up to the axis")
        sizes = [ctx.fresh_dim() for _ in ctx.node.outputs]
    if len(sizes) != len(ctx.node.outputs):
        raise ctx.error(f"has {len(sizes)} parts and {len(ctx.node.outputs)} outputs")
    whole: Dim = 0
    for size in sizes:
        ctx.require_at_most(0, size, "parts that are not negative")
        whole = whole + size
    ctx.require_equal(whole, total, "parts that add up to the axis")
    return sizes


# ---- ops that keep the shape ---------------------------------------------------------------------


@op(
    "ReverseSequence", traits=READ_THROUGH,
    axes=reverse_sequence,
)  # fmt: skip
def _reverse_sequence(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    batch, time = ctx.attr("batch_axis"), ctx.attr("time_axis")
    if x.rank < 2 or {batch, time} != {0, 1}:
        raise ctx.error(f"takes batch and time axes 0 and 1 of {x}, not {batch} and {time}")
    ctx.require_same_shape(ctx.tensor(1).dims, (x.dims[batch],), "a length for each sequence")
    ctx.require_values(1, 0, x.dims[time], "lengths within the time axis")
    return [x]


@op(
    "Trilu", traits=(*MOVES, Trait.MOVEMENT),
    axes=triangle,
)  # fmt: skip
@op("Trilu", domain="com.microsoft", traits=MOVES, arity=(1, 2), defaults={"upper": 1},
    doc="ONNX's Trilu.", evaluate=lambda node, inputs: [_triangle(node, *inputs)],
    axes=triangle,
)  # fmt: skip
def _same_type(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    if x.rank < 2:
        raise ctx.error(f"the input must have rank 2 or more, not {x.rank}")
    return [x]


def _triangle(node: Node, x: Array, k: Array | None = None) -> Array:
    pick = np.triu if node.attrs.get("upper", 1) else np.tril
    return pick(x, 0 if k is None else int(k.reshape(-1)[0])).astype(x.dtype)


# ---- blocks --------------------------------------------------------------------------------------


def _block(ctx: InferContext) -> tuple[TensorType, int]:
    x, size = ctx.tensor(0), int(ctx.attr("blocksize"))
    if x.rank != 4 or size < 1:
        raise ctx.error(f"needs rank 4 and a positive blocksize, not {x} and {size}")
    return x, size


def _divided(ctx: InferContext, d: Dim, by: int) -> Dim:
    ctx.require_multiple(d, by, f"a dimension that {by} divides")
    return d // by


@op(
    "DepthToSpace", traits=READ_THROUGH,
    axes=depth_to_space,
)  # fmt: skip
def _depth_to_space(ctx: InferContext) -> list[Type]:
    x, size = _block(ctx)
    n, c, h, w = x.dims
    return [x.with_shape((n, _divided(ctx, c, size * size), h * size, w * size))]


@op(
    "SpaceToDepth", traits=READ_THROUGH,
    axes=space_to_depth,
)  # fmt: skip
def _space_to_depth(ctx: InferContext) -> list[Type]:
    x, size = _block(ctx)
    n, c, h, w = x.dims
    rows, columns = _divided(ctx, h, size), _divided(ctx, w, size)
    return [x.with_shape((n, c * size * size, rows, columns))]
