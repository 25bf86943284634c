"""The axes of a Resize: scales, sizes, and the input position of each output position."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ....ir.ops.vision import has_entries, resize_axes, scaled
from ...tir.builder import Expr
from ...tir.extents import as_int, index
from ...tir.numeric import cast
from ..registry import LowerContext, sizes


@dataclass(frozen=True)
class Axis:
    """One resized axis: extents and scale (a float, or a float64 expression)."""

    number: int
    size: Any
    new_size: Any
    scale: Any
    roi: tuple[Any, Any] | None

    @property
    def known_scale(self) -> float | None:
        return self.scale if isinstance(self.scale, float) else None

    @property
    def width(self) -> Any:
        """The new extent before rounding down, a float where it is known."""
        size, scale = as_int(self.size), self.known_scale
        if size is not None and scale is not None:
            return size * scale
        return double(self.scale) * double(self.size)


def double(value: Any) -> Expr:
    """A number or expression as float64."""
    if isinstance(value, int | float):
        return tirx.const(float(value), "float64")
    return cast(value, "float64")


def resized_axes(c: LowerContext) -> list[Axis]:
    """The axes that change, with their scales."""
    x, out, source = c.input(0), c.out_shape(), c.input_types[0]
    assert source is not None
    numbers = resize_axes(c.node, x.rank)
    same = [source.dims[a] == c.types[0].dims[a] for a in numbers]
    scales = _scales(c, [x.shape[a] for a in numbers], [out[a] for a in numbers], same)
    crop = c.attr("coordinate_transformation_mode") == "tf_crop_and_resize"
    found = []
    for i, (a, scale) in enumerate(zip(numbers, scales, strict=True)):
        roi = (_roi(c, i), _roi(c, i + len(numbers))) if crop else None
        whole = roi is None or (isinstance(roi[0], float) and roi == (0.0, 1.0))
        if not (same[i] and whole and isinstance(scale, float) and scale == 1.0):
            found.append(Axis(a, x.shape[a], out[a], scale, roi))
    return found


def _roi(c: LowerContext, i: int) -> Any:
    known = c.known(1)
    return double(c.input(1)[i]) if known is None else float(known.reshape(-1)[i])


def _scales(
    c: LowerContext, old: Sequence[Any], new: Sequence[Any], same: Sequence[bool]
) -> list[Any]:
    if has_entries(c, 2):
        known = c.known(2)
        if known is not None:
            return [float(v) for v in known.flat]
        return [double(c.input(2)[i]) for i in range(len(old))]
    if c.attr("keep_aspect_ratio_policy") != "stretch":
        return [common_scale(c, old)] * len(old)
    return [1.0 if equal else _ratio(n, o) for n, o, equal in zip(new, old, same, strict=True)]


def _ratio(new: Any, old: Any) -> Any:
    a, b = as_int(new), as_int(old)
    return a / b if a is not None and b else double(new) / double(old)


def common_scale(c: LowerContext, old: Sequence[Any]) -> Expr:
    """The scale that all axes share under ``keep_aspect_ratio_policy``."""
    wanted = [double(c.input(3)[i]) for i in range(len(old))]
    ratios = [w / double(o) for w, o in zip(wanted, old, strict=True)]
    pick = tirx.min if c.attr("keep_aspect_ratio_policy") == "not_larger" else tirx.max
    scale = ratios[0]
    for r in ratios[1:]:
        scale = pick(scale, r)
    return scale


@sizes("Resize")
def resize_sizes(c: LowerContext) -> Sequence[Expr]:
    """The extents that are new symbols, in the order of the output's dims."""
    x = c.input(0)
    numbers = resize_axes(c.node, x.rank)
    entries = sorted(range(len(numbers)), key=lambda i: numbers[i])
    old = [x.shape[a] for a in numbers]
    if not has_entries(c, 2):
        if c.attr("keep_aspect_ratio_policy") == "stretch":
            return [c.input(3)[i] for i in entries]
        scale = common_scale(c, old)
        return [cast(tirx.floor(scale * double(old[i]) + double(0.5)), "int64") for i in entries]
    source, known = c.input_types[0], c.known(2)
    assert source is not None

    def is_open(i: int) -> bool:
        return known is None or scaled(source.dims[numbers[i]], float(known.flat[i])) is None

    def extent(i: int) -> Expr:
        product = cast(index(old[i]), "float32") * cast(c.input(2)[i], "float32")
        return cast(tirx.floor(product), "int64")

    return [extent(i) for i in entries if is_open(i)]


def source_position(c: LowerContext, axis: Axis, o: Expr) -> Expr:
    """The position in the input of output position ``o``, as float64."""
    mode = c.attr("coordinate_transformation_mode")
    y, scale, size = double(o), double(axis.scale), double(axis.size)
    half = double(0.5)
    if mode == "asymmetric":
        return y / scale
    if mode == "align_corners":
        return _unless_single(axis, lambda gaps: y * (size - 1) / gaps, double(0))
    if mode == "tf_crop_and_resize":
        assert axis.roi is not None
        start, end = (double(v) for v in axis.roi)
        spread = (end - start) * (size - 1)
        inner = _unless_single(axis, lambda gaps: y * spread / gaps, spread / 2)
        return inner + start * (size - 1)
    centered = (y + half) / scale - half
    if mode == "half_pixel":
        return centered
    if mode == "pytorch_half_pixel":
        return _unless_single(axis, lambda _gaps: centered, -half)
    if mode == "half_pixel_symmetric":
        return size / 2 * (double(1) - double(axis.new_size) / double(axis.width)) + centered
    raise c.error(f"unknown coordinate_transformation_mode {mode!r}")


def _unless_single(axis: Axis, many: Callable[[Expr], Expr], single: Expr) -> Expr:
    """``many(number of new elements - 1)``, or ``single`` if there is only one element."""
    width = axis.width
    if isinstance(width, float):
        return single if width == 1 else many(double(width - 1))
    alone = width.equal(double(1))
    return tirx.Select(alone, single, many(tirx.Select(alone, double(1), width - 1)))
