"""Ops that cut tensors and put borders around them: Slice, Pad, CenterCropPad, Col2Im."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import OperandError
from ..axes.movement import center_crop_pad, columns_to_image, pad, slice_
from ..dims import Dim, dim_max, dim_min
from ..graph import Node
from ..registry import InferContext, op
from ..shapes import normalize_axes
from ..slices import python_slice, slice_range
from ..traits import Trait
from ..types import TensorType, Type
from .shape_values import Arrays, dims_of, inferred_shape, ints_of, numel

MOVES = (Trait.INJECTIVE,)


# ---- Slice ---------------------------------------------------------------------------------------


def _slice_axes(ctx: InferContext, count: int | None) -> list[int] | None:
    """The axes that are sliced; None where that is only known at run time."""
    rank = ctx.tensor(0).rank
    if ctx.has(3):
        axes = ints_of(ctx.known(3))
        return None if axes is None else list(normalize_axes(axes, rank))
    return None if count is None else list(range(count))


def _slice_count(ctx: InferContext) -> int | None:
    count = numel(ctx.tensor(1).dims)
    return count if isinstance(count, int) else None


def _evaluate_slice(_node: Node, inputs: list[Any]) -> list[Any]:
    x, starts, ends, *rest = inputs
    axes, steps = [*rest, None, None][:2]
    where: list[slice] = [slice(None)] * x.ndim
    for k, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        axis = k if axes is None else int(axes[k])
        step = 1 if steps is None else int(steps[k])
        where[axis] = python_slice(start, end, step, x.shape[axis])
    return [x[tuple(where)]]


@op("Slice", traits=(*MOVES, Trait.PICKS, Trait.MOVEMENT), evaluate=_evaluate_slice,
    propagate=lambda ctx, arrays: _slice_value(ctx, arrays),
    axes=slice_,
)  # fmt: skip
def _slice(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    axes = _slice_axes(ctx, _slice_count(ctx))
    if ctx.has(3):
        ctx.require_values(3, -x.rank, x.rank - 1, "axes of its input")
    if ctx.has(4):
        ctx.require_nonzero(4, "steps other than 0")
    _require_lengths(ctx, axes)
    if axes is None:
        return [x.with_shape(tuple(ctx.fresh_dim() for _ in x.dims))]
    if len(axes) > x.rank:
        raise ctx.error(f"{len(axes)} slices do not fit rank {x.rank}")
    out = list(x.dims)
    ranges = slice_ranges(ctx, axes)
    for k, a in enumerate(axes):
        found = None if ranges is None else ranges[k]
        out[a] = ctx.fresh_dim() if found is None else found[1]
    return [x.with_shape(tuple(out))]


def _require_lengths(ctx: InferContext, axes: Sequence[int] | None) -> None:
    """Record that starts, ends, axes and steps have the same length."""
    count = numel(ctx.tensor(1).dims) if axes is None else len(axes)
    for i in filter(ctx.has, (1, 2, 3, 4)):
        given = numel(ctx.tensor(i).dims)
        ctx.require_equal(given, count, "starts, ends, axes and steps of one length")
    if axes is None:
        ctx.require_at_most(count, ctx.tensor(0).rank, "no more slices than axes")


def slice_ranges(ctx: InferContext, axes: Sequence[int]) -> list[tuple[Dim, Dim] | None] | None:
    """First index and length along each of ``axes``; None for what is not known."""
    dims = ctx.tensor(0).dims
    starts, ends = dims_of(ctx.known(1)), dims_of(ctx.known(2))
    steps = ints_of(ctx.known(4)) if ctx.has(4) else [1] * len(axes)
    if starts is None or ends is None or steps is None:
        return None
    if not len(starts) == len(ends) == len(steps) == len(axes):
        raise ctx.error("starts, ends, axes and steps differ in length")
    return [
        slice_range(s, e, step, dims[a])
        for s, e, step, a in zip(starts, ends, steps, axes, strict=True)
    ]


def _slice_value(ctx: InferContext, arrays: Arrays) -> Arrays | None:
    bounds = [ints_of(a) for a in arrays[1:3]]
    axes = _slice_axes(ctx, _slice_count(ctx))
    steps = ints_of(ctx.known(4)) if ctx.has(4) else [1] * len(axes or ())
    if arrays[0] is None or axes is None or steps is None:
        return None
    starts, ends = bounds
    if starts is None or ends is None:
        return None
    where: list[slice] = [slice(None)] * arrays[0].ndim
    for a, s, e, step in zip(axes, starts, ends, steps, strict=True):
        where[a] = python_slice(s, e, step, arrays[0].shape[a])
    return [arrays[0][tuple(where)]]


# ---- Pad -----------------------------------------------------------------------------------------


def pad_amounts(ctx: InferContext) -> list[tuple[Dim, Dim] | None]:
    """The pads before and after each axis; None if they are only known at run time."""
    rank = ctx.tensor(0).rank
    axes: Sequence[int] | None = range(rank)
    if ctx.has(3):
        given = ints_of(ctx.known(3))
        axes = None if given is None else normalize_axes(given, rank)
    if axes is None:
        pairs = 2 * numel(ctx.tensor(3).dims)
        ctx.require_equal(numel(ctx.tensor(1).dims), pairs, "pads before and after each axis")
        ctx.require_values(3, -rank, rank - 1, "axes of its input")
        return [None] * rank
    out: list[tuple[Dim, Dim] | None] = [(0, 0)] * rank
    pads = dims_of(ctx.known(1))
    if pads is None:
        count = numel(ctx.tensor(1).dims)
        ctx.require_equal(count, 2 * len(axes), "pads before and after each axis")
    if pads is not None and len(pads) != 2 * len(axes):
        raise ctx.error(f"{len(pads)} pads do not fit {len(axes)} axes")
    for k, a in enumerate(axes):
        out[a] = None if pads is None else (pads[k], pads[k + len(axes)])
    return out


def _pad_value(ctx: InferContext, arrays: Arrays) -> Arrays | None:
    widths = [_static_width(w) for w in pad_amounts(ctx)]
    fill = arrays[2] if ctx.has(2) else np.int64(0)
    if arrays[0] is None or fill is None or ctx.attr("mode") not in (None, "constant"):
        return None
    known = [w for w in widths if w is not None]
    if len(known) != len(widths) or inferred_shape(ctx) is None:
        return None
    value = np.asarray(fill).reshape(-1)[0]
    return [np.pad(arrays[0], known, mode="constant", constant_values=value)]


def _static_width(width: tuple[Dim, Dim] | None) -> tuple[int, int] | None:
    """The pad if it is known and not negative, else None."""
    if width is None:
        return None
    before, after = width
    if not isinstance(before, int) or not isinstance(after, int):
        return None
    return (before, after) if before >= 0 and after >= 0 else None


def _evaluate_pad(node: Node, inputs: list[Any]) -> list[Any]:
    """``Pad`` by NumPy; negative pads crop before others are added."""
    x, pads = inputs[:2]
    rest: list[Any] = [*inputs[2:], None, None]
    axes = range(x.ndim) if rest[1] is None else normalize_axes(rest[1].reshape(-1), x.ndim)
    widths = np.zeros((2, x.ndim), np.int64)
    widths[:, list(axes)] = pads.reshape(2, -1)
    cut = tuple(
        slice(max(0, -before), max(0, n + min(0, after)))
        for before, after, n in zip(*widths.tolist(), x.shape, strict=True)
    )
    added = np.maximum(widths, 0).T
    if any(n + w < 0 for n, w in zip(x.shape, widths.sum(0).tolist(), strict=True)):
        raise OperandError("the pads cut off more than there is")
    mode: Any = node.attrs.get("mode", "constant")
    limits = np.maximum(np.array(x[cut].shape, np.int64)[:, None] - 1, 0)
    if mode == "reflect" and np.any(added > limits):
        raise OperandError("reflected pads must be shorter than the dim")
    if mode != "constant":
        return [np.pad(x[cut], added, mode=mode)]
    fill = 0 if rest[0] is None else rest[0].reshape(-1)[0]
    return [np.pad(x[cut], added, mode="constant", constant_values=fill).astype(x.dtype)]


@op(
    "Pad", traits=(*MOVES, Trait.MOVEMENT, Trait.FLOAT_POLYMORPHIC), propagate=_pad_value,
    evaluate=_evaluate_pad,
    axes=pad,
)  # fmt: skip
@op("Pad", domain="com.microsoft", traits=MOVES, arity=(2, 3), evaluate=_evaluate_pad,
    defaults={"mode": "constant"}, doc="ONNX's Pad without the axes input.",
    axes=pad,
)  # fmt: skip
def _pad(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    if ctx.attr("mode") not in ("constant", "reflect", "edge", "wrap"):
        raise ctx.error(f"mode {ctx.attr('mode')!r} is not known")
    amounts = pad_amounts(ctx)
    out = [
        ctx.fresh_dim() if width is None else d + width[0] + width[1]
        for d, width in zip(x.dims, amounts, strict=True)
    ]
    for d, extent, width in zip(x.dims, out, amounts, strict=True):
        ctx.require_at_most(0, extent, "pads that cut off no more than there is")
        kept = d + sum(dim_min(w, 0) for w in width or ())
        if ctx.attr("mode") != "constant" and width != (0, 0):
            ctx.require_at_most(dim_min(extent, 1), kept, "elements to fill its pads with")
        if ctx.attr("mode") == "reflect":
            most = dim_max(kept - 1, 0)
            for pad in width or ():
                ctx.require_at_most(pad, most, "reflected pads shorter than the dim")
    return [x.with_shape(tuple(out))]


# ---- CenterCropPad, Col2Im -----------------------------------------------------------------------


@op(
    "CenterCropPad", traits=MOVES,
    axes=center_crop_pad,
)  # fmt: skip
def _center_crop_pad(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    given = ctx.attr("axes")
    axes = tuple(range(x.rank)) if given is None else normalize_axes(given, x.rank)
    target = dims_of(ctx.known(1))
    ctx.require_same_shape(ctx.tensor(1).dims, (len(axes),), "a size for each axis")
    out = list(x.dims)
    for k, a in enumerate(axes):
        out[a] = ctx.fresh_dim() if target is None else target[k]
        ctx.require_at_most(0, out[a], "sizes that are not negative")
    return [x.with_shape(tuple(out))]


def _require_columns(
    ctx: InferContext, x: TensorType, image: Sequence[Dim], block: Sequence[Dim]
) -> None:
    """Record that there is a row for each element of a block and a column for each block."""
    count = len(image)
    strides = ctx.attr("strides") or (1,) * count
    dilations = ctx.attr("dilations") or (1,) * count
    pads = ctx.attr("pads") or (0,) * (2 * count)
    blocks: Dim = 1
    for k in range(count):
        reach = dilations[k] * (block[k] - 1) + 1
        padded = image[k] + pads[k] + pads[count + k]
        ctx.require_at_most(1, block[k], "blocks of at least 1 element")
        ctx.require_at_most(reach, padded, f"a block that fits dim {k} of the image")
        blocks = blocks * ((padded - reach) // strides[k] + 1)
    ctx.require_multiple(x.dims[1], numel(tuple(block)), "rows for whole blocks")
    ctx.require_equal(x.dims[2], blocks, "a column for each place of the block")


@op(
    "Col2Im",
    axes=columns_to_image,
)  # fmt: skip
def _col2im(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    count = numel(ctx.tensor(1).dims)
    if x.rank != 3 or not isinstance(count, int):
        raise ctx.undetermined(f"needs an input of rank 3 and an image of known rank, not {x}")
    block, image = dims_of(ctx.known(2)), dims_of(ctx.known(1))
    channels = ctx.fresh_dim() if block is None else x.dims[1] // numel(tuple(block))
    sizes = image or [ctx.fresh_dim() for _ in range(count)]
    if block is not None:
        _require_columns(ctx, x, sizes, block)
    return [x.with_shape((x.dims[0], channels, *sizes))]
