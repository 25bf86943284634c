"""Type inference of ops on images: resizing, sampling, regions of interest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...errors import OperandError
from ..axes.build import Builder, rule
from ..axes.indexing import affine_grid, grid_sample, regions
from ..axes.map import Axis, AxisMap, whole
from ..dims import Dim, dim_min, is_static, known_equal
from ..graph import Graph, Node
from ..reference import reference_runner
from ..registry import InferContext, attribute, op
from ..shapes import normalize_axes
from ..traits import Trait
from ..types import Type, dtype
from .shape_values import dims_of, ints_of, numel
from .text_host import require_known


@rule
def resize_map(b: Builder) -> AxisMap | None:
    """Axes that keep their size are mapped; enlarged ones by whole factors are (index, copy)."""
    listed = resize_axes(b.node, len(b.shape()))
    scales = _known_scales(b, listed)
    taken: list[Axis] = []
    given: list[Axis] = []
    for a, (d, extent) in enumerate(zip(b.shape(), b.out(), strict=True)):
        scale = scales.get(a) if a in listed else 1
        if scale == 1 or scale is not None and _repeats(b.node):
            f = b.factor(d)
            taken.append(whole(f))
            given.append(whole(f) if scale == 1 else whole(f, b.factor(scale, fixed=True)))
        else:
            taken.append(b.opaque(d))
            given.append(b.opaque(extent))
    b.take(0, taken)
    b.give(given)
    return b.build()


def _known_scales(b: Builder, listed: Sequence[int]) -> dict[int, int]:
    """The scales of resized axes that are known to be whole numbers."""
    if b.attr("coordinate_transformation_mode") == "tf_crop_and_resize":
        return {}
    value = b.inputs[2] if b.has(2) else None
    if value is None or value.constant is None or not value.constant.size:
        stretched = b.attr("keep_aspect_ratio_policy") == "stretch"
        return {a: 1 for a in listed if stretched and known_equal(b.shape()[a], b.out()[a])}
    pairs = zip(listed, value.constant.reshape(-1).tolist(), strict=True)
    return {a: int(s) for a, s in pairs if float(s).is_integer()}


def _repeats(node: Node) -> bool:
    """Does this Resize repeat each element by whole scales?"""
    way = attribute(node, "coordinate_transformation_mode"), attribute(node, "nearest_mode")
    plain = way in (("half_pixel", "round_prefer_floor"), ("asymmetric", "floor"))
    return attribute(node, "mode") == "nearest" and plain


@op(
    "Resize", traits=(Trait.SOURCE, Trait.FLOAT_POLYMORPHIC),
    axes=resize_map,
)  # fmt: skip
def infer_resize(c: InferContext) -> list[Type]:
    x = c.tensor(0)
    if x.shape is None:
        raise c.undetermined("the rank of the input must be known")
    axes = resize_axes(c.node, x.rank)
    dims = list(x.dims)
    if attribute(c.node, "coordinate_transformation_mode") == "tf_crop_and_resize":
        c.require_same_shape(c.tensor(1).dims, (2 * len(axes),), "a start and an end for each axis")
    for axis, extent in zip(axes, _resized(c, [dims[a] for a in axes]), strict=True):
        dims[axis] = extent
    return [x.with_shape(tuple(dims))]


def resize_picks(node: Node) -> bool:
    """Is every result of this Resize an element of its input?"""
    cropped = attribute(node, "coordinate_transformation_mode") == "tf_crop_and_resize"
    return attribute(node, "mode") == "nearest" and not cropped


def resize_axes(node: Node, rank: int) -> tuple[int, ...]:
    """The axes that ``scales`` and ``sizes`` are for, in their order."""
    given = attribute(node, "axes")
    return normalize_axes(given, rank) if given else tuple(range(rank))


def has_entries(c: Any, i: int) -> bool:
    """Whether input ``i`` of a Resize is given and not the empty tensor that stands for nothing.

    ``c`` is an inference or a lowering context.
    """
    if not c.has(i):
        return False
    types: Any = c.inputs if isinstance(c, InferContext) else c.input_types
    shape = types[i].shape
    return shape is None or tuple(shape) != (0,)


def _resized(c: InferContext, extents: list[Dim]) -> list[Dim]:
    """The new extents of the resized axes."""
    if has_entries(c, 2):
        c.require_same_shape(c.tensor(2).dims, (len(extents),), "a scale for each axis")
        c.require_numbers(2, "scales above 0", low=0, nonzero=True)
        scales = c.known(2)
        if scales is None:
            return [c.fresh_dim() for _ in extents]
        _check_count(c, "scales", scales.size, len(extents))
        found = [scaled(e, float(s)) for e, s in zip(extents, scales.reshape(-1), strict=True)]
        return [c.fresh_dim() if d is None else d for d in found]
    if not has_entries(c, 3):
        raise c.error("neither scales nor sizes is given")
    c.require_same_shape(c.tensor(3).dims, (len(extents),), "a size for each axis")
    if c.attr("keep_aspect_ratio_policy") == "stretch":
        sizes = dims_of(c.known(3)) or [c.fresh_dim() for _ in extents]
        _check_count(c, "sizes", len(sizes), len(extents))
        for old, new in zip(extents, sizes, strict=True):
            if old != new:
                c.require_at_most(dim_min(new, 1), old, "an element to spread on each axis")
        return sizes
    for extent in extents:
        c.require_at_most(1, extent, "an element on each axis, whose ratios decide the size")
    wanted = ints_of(c.known(3))
    if wanted is None or not all(is_static(e) for e in extents):
        return [c.fresh_dim() for _ in extents]
    _check_count(c, "sizes", len(wanted), len(extents))
    return list(keep_aspect(str(c.attr("keep_aspect_ratio_policy")), wanted, extents))


def _check_count(c: InferContext, name: str, count: int, axes: int) -> None:
    if count != axes:
        raise c.error(f"{name} has {count} entries for {axes} axes")


def scaled(extent: Dim, scale: float) -> Dim | None:
    """``floor(extent * scale)`` in float32, or None where that is no dim expression."""
    if isinstance(extent, int):
        return int(np.floor(np.float32(extent) * np.float32(scale)))
    symbolic: Dim = extent
    for denominator in (1 << p for p in range(9)):
        if (scale * denominator).is_integer():
            return symbolic * int(scale * denominator) // denominator
    divisor = max(1, round(1 / scale))
    exact = bool(np.float32(1 / divisor) == np.float32(scale))
    return symbolic // divisor if exact else None


def keep_aspect(policy: str, wanted: list[int], extents: list[Any]) -> list[int]:
    """Sizes by one scale for all axes: the largest (``not_smaller``) or least that ``wanted``
    implies.

    Raises ``ValueError`` for another policy.
    """
    if policy not in ("not_larger", "not_smaller"):
        raise OperandError(f"unknown keep_aspect_ratio_policy {policy!r}")
    ratios = [w / e for w, e in zip(wanted, extents, strict=True)]
    scale = min(ratios) if policy == "not_larger" else max(ratios)
    return [int(scale * e + 0.5) for e in extents]


def _evaluate_grid_sample(node: Node, inputs: list[Any]) -> list[Any]:
    """com.microsoft's GridSample is ONNX's with other names for its modes."""
    names = {"bilinear": "linear", "bicubic": "cubic"}
    attrs = {k: attribute(node, k) for k in ("mode", "padding_mode", "align_corners")}
    attrs["mode"] = names.get(attrs["mode"], attrs["mode"])
    twin = Graph().add_node("GridSample", [], attrs)
    return reference_runner(twin, [True, True])(inputs)


@op(
    "GridSample", traits=(Trait.SOURCE,),
    axes=grid_sample,
)  # fmt: skip
@op(
    "GridSample",
    domain="com.microsoft",
    arity=(2, 2),
    evaluate=_evaluate_grid_sample,
    defaults={"mode": "bilinear", "padding_mode": "zeros", "align_corners": 0},
    axes=grid_sample,
)  # fmt: skip
def infer_grid_sample(c: InferContext) -> list[Type]:
    x, grid = c.tensor(0), c.tensor(1)
    if x.rank < 3 or x.rank != grid.rank:
        raise c.error(f"the input {x} and the grid {grid} must have one rank of at least 3")
    c.require_equal(grid.dims[-1], x.rank - 2, f"a grid of {x.rank - 2} coordinates")
    c.require_equal(grid.dims[0], x.dims[0], "a grid for each image")
    empty = "an image with elements where the grid has places"
    for d in x.dims[2:]:
        c.require_at_most(dim_min(numel(grid.dims[1:-1]), 1), d, empty)
    return [x.with_shape((*x.dims[:2], *grid.dims[1:-1]))]


@op(
    "AffineGrid",
    axes=affine_grid,
)  # fmt: skip
def infer_affine_grid(c: InferContext) -> list[Type]:
    theta, size = c.tensor(0), c.tensor(1)
    count = size.dims[0]
    if count not in (4, 5):
        raise c.error(f"a size of 4 or 5 entries is needed, not {size}")
    rank = 2 if count == 4 else 3
    entries = dims_of(c.known(1))
    spatial = [c.fresh_dim() for _ in range(rank)] if entries is None else entries[2:]
    return [theta.with_shape((theta.dims[0], *spatial, rank))]


@op(
    "RoiAlign",
    axes=regions,
)  # fmt: skip
def infer_roi_align(c: InferContext) -> list[Type]:
    x, rois = c.tensor(0), c.tensor(1)
    c.require_same_shape(c.tensor(2).dims, (rois.dims[0],), "an image for each region")
    c.require_equal(rois.dims[1], 4, "regions of 4 coordinates")
    c.require_values(2, 0, x.dims[0] - 1, "regions of images of the batch")
    for extent in x.dims[2:]:
        some = dim_min(rois.dims[0] * x.dims[1], 1)
        c.require_at_most(some, extent, "pixels to sample where there are regions")
    size = (int(c.attr("output_height")), int(c.attr("output_width")))
    return [x.with_shape((rois.dims[0], x.dims[1], *size))]


@op("ImageDecoder", traits=(Trait.HOST,))
def infer_image_decoder(c: InferContext) -> list[Type]:
    require_known(c, "pixel_format", ("RGB", "BGR", "Grayscale"))
    channels = 1 if c.attr("pixel_format") == "Grayscale" else 3
    shape = (c.fresh_dim("height"), c.fresh_dim("width"), channels)
    return [c.tensor(0).with_dtype(dtype("uint8")).with_shape(shape)]
