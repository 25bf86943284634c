"""Lowering of Resize: one pass for each resized axis, by small tables.

The tables of an axis have, for each output position, the first input position and the weights. They
are computed in float64, as in onnx.reference, so that positions on a boundary are rounded the same
way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from tvm import tirx

from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import as_int, index
from ...tir.numeric import cast, dtype_of
from ..registry import LowerContext, lowering
from .quant_math import round_even, saturate
from .vision_axes import Axis, double, resized_axes, source_position
from .vision_sampling import clamp_index


@lowering("Resize")
def lower_resize(c: LowerContext) -> TensorExpr:
    """Resize-19: every mode, coordinate transformation and way to give the size."""
    axes = resized_axes(c)
    x = c.input(0)
    if c.attr("mode") == "nearest":
        result = _nearest(c, x, axes)
    else:
        result = _interpolated(c, x, axes)
    result = _extrapolated(c, result, axes)
    return _in_dtype(c, result)


def _table(b: Builder, axis: Axis, dtype: str, entry: Callable[[Expr], Expr]) -> BufferTensor:
    table = b.workspace((axis.new_size,), dtype, "axis")
    b.nest(table.shape, lambda at: table.store(at, entry(at[0])))
    return table


# ---- nearest -------------------------------------------------------------------------------------


def _nearest(c: LowerContext, x: TensorExpr, axes: list[Axis]) -> TensorExpr:
    places = {axis.number: _nearest_place(c, axis) for axis in axes}

    def load(at: tuple[Expr, ...]) -> Expr:
        return x.load(tuple(places[d](i) if d in places else i for d, i in enumerate(at)))

    return TensorExpr(x.dtype, c.out_shape(), load, x.cost + 1)


def _nearest_place(c: LowerContext, axis: Axis) -> Callable[[Expr], Expr]:
    """The input position of an output position along ``axis``."""
    factor = _whole_factor(c, axis)
    if factor is not None:
        return lambda o: tirx.floordiv(o, index(factor))
    round_to = {
        "round_prefer_floor": lambda x: tirx.ceil(x - double(0.5)),
        "round_prefer_ceil": lambda x: tirx.floor(x + double(0.5)),
        "floor": tirx.floor,
        "ceil": tirx.ceil,
    }.get(str(c.attr("nearest_mode")))
    if round_to is None:
        raise c.error(f"unknown nearest_mode {c.attr('nearest_mode')!r}")

    def entry(o: Expr) -> Expr:
        position = cast(round_to(source_position(c, axis, o)), "int64")
        return clamp_index(position, axis.size)

    table = _table(c.b, axis, "int64", entry)
    return lambda o: table[o]


def _whole_factor(c: LowerContext, axis: Axis) -> int | None:
    """The factor of an enlargement that repeats each element, where that is known."""
    mode, rounding = c.attr("coordinate_transformation_mode"), c.attr("nearest_mode")
    repeats = (mode == "asymmetric" and rounding == "floor") or (
        mode == "half_pixel" and rounding.startswith("round")
    )
    scale = axis.known_scale
    if not repeats or scale is None or not scale.is_integer():
        return None
    old, new = as_int(axis.size), as_int(axis.new_size)
    if old is not None and new is not None and new > old * scale:
        return None
    return int(scale)


# ---- linear and cubic ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Taps:
    """The input of each output ``o`` along an axis: ``count`` elements from ``first[o]`` on,
    weighted.
    """

    axis: Axis
    count: Any
    first: BufferTensor
    weight: Callable[[Expr, Expr], Expr]
    dtype: str

    def term(self, at: tuple[Expr, ...], load: Callable[[tuple[Expr, ...]], Expr], t: Any) -> Expr:
        """The contribution of tap ``t`` to the output at ``at``."""
        d = self.axis.number
        where = clamp_index(self.first[at[d]] + t, self.axis.size)
        value = load((*at[:d], where, *at[d + 1 :]))
        return cast(value, self.dtype) * cast(self.weight(at[d], t), self.dtype)


def _interpolated(c: LowerContext, x: TensorExpr, axes: list[Axis]) -> TensorExpr:
    """Interpolate along one axis after the other; the last result is an expression."""
    # Integers are rounded at the end, where an inexact sum could be on the wrong side of a half.
    dtype = "float32" if x.compute_dtype == "float32" else "float64"
    shape = list(x.shape)
    current: TensorExpr = x
    for axis in axes:
        taps = _taps(c, axis, dtype)
        source = c.b.materialize(current)
        shape[axis.number] = axis.new_size
        current = _pass(c.b, source, tuple(shape), taps)
    return current


def _pass(b: Builder, x: BufferTensor, shape: tuple[Any, ...], taps: Taps) -> TensorExpr:
    dtype = taps.dtype
    count = as_int(taps.count)
    if count is not None and count <= 4:

        def load(at: tuple[Expr, ...]) -> Expr:
            total = taps.term(at, x.load, index(0))
            for t in range(1, count):
                total = total + taps.term(at, x.load, index(t))
            return total

        return TensorExpr(dtype, shape, load, 4 * count)
    out = b.workspace(shape, dtype, "resized")

    def body(at: tuple[Expr, ...]) -> None:
        total = b.scalar(dtype, 0)
        with b.loop(taps.count) as t:
            total.set(total.get() + taps.term(at, x.load, t))
        out.store(at, total.get())

    b.nest(shape, body, cost=4 * (count or 16))
    return out


def _taps(c: LowerContext, axis: Axis, dtype: str) -> Taps:
    b = c.b
    kernel, reach = _kernel(c)
    shrink = _shrink(c, axis)
    count = _tap_count(b, reach, shrink)
    half = count // 2 if isinstance(count, int) else tirx.floordiv(count, index(2))
    first, ratio, norm = (
        b.workspace((axis.new_size,), t, "axis") for t in ("int64", "float64", "float64")
    )

    def raw(o: Expr, t: Expr) -> Expr:
        distance = (double(t + 1 - half) - ratio[o]) * double(shrink)
        value = kernel(b.let(tirx.abs(distance)))
        if not c.attr("exclude_outside"):
            return value
        place = first[o] + t
        return tirx.Select(tirx.all(place >= 0, place < index(axis.size)), value, double(0))

    def body(at: tuple[Expr, ...]) -> None:
        (o,) = at
        position = b.let(source_position(c, axis, o))
        below = b.let(tirx.ceil(position) - double(1))
        first.store(at, cast(below, "int64") + 1 - half)
        ratio.store(at, position - below)
        if not normalised:
            return
        total = b.scalar("float64", 0)
        with b.loop(count) as t:
            total.set(total.get() + raw(o, t))
        norm.store(at, tirx.Select(total.get().equal(double(0)), double(1), total.get()))

    normalised = bool(c.attr("exclude_outside") or c.attr("antialias"))
    b.nest((axis.new_size,), body, cost=16, sequential_last=True)

    def weight(o: Expr, t: Expr) -> Expr:
        return raw(o, t) / norm[o] if normalised else raw(o, t)

    if not isinstance(count, int):
        return Taps(axis, count, first, weight, dtype)
    table = b.workspace((axis.new_size, count), dtype, "weights")
    b.nest(table.shape, lambda at: table.store(at, weight(*at)), cost=16)
    return Taps(axis, count, first, lambda o, t: table[o, t], dtype)


def _kernel(c: LowerContext) -> tuple[Callable[[Expr], Expr], int]:
    """The weight of a sample by its distance, and the distance beyond which it is zero."""
    if c.attr("mode") == "linear":
        return lambda x: tirx.max(double(1) - x, double(0)), 1
    if c.attr("mode") != "cubic":
        raise c.error(f"unknown mode {c.attr('mode')!r}")
    a = double(float(c.attr("cubic_coeff_a")))

    def cubic(x: Expr) -> Expr:
        near = ((a + 2) * x - (a + 3)) * x * x + 1
        far = ((a * x - a * 5) * x + a * 8) * x - a * 4
        return tirx.Select(x <= double(1), near, tirx.Select(x < double(2), far, double(0)))

    return cubic, 2


def _shrink(c: LowerContext, axis: Axis) -> Any:
    """The factor by which antialiasing stretches the kernel: 1 unless it shrinks the image."""
    if not c.attr("antialias"):
        return 1.0
    known = axis.known_scale
    return min(known, 1.0) if known is not None else tirx.min(double(axis.scale), double(1))


def _tap_count(b: Builder, reach: int, shrink: Any) -> Any:
    if isinstance(shrink, float):
        start = int(-reach / shrink // 1) + 1
        return 2 - 2 * start
    start = cast(tirx.floor(double(-reach) / shrink), "int64") + 1
    return b.let(index(2) - start * 2)


# ---- the result ----------------------------------------------------------------------------------


def _extrapolated(c: LowerContext, x: TensorExpr, axes: list[Axis]) -> TensorExpr:
    """With ``tf_crop_and_resize`` positions outside the image get ``extrapolation_value``."""
    cropped = [axis for axis in axes if axis.roi is not None]
    if not cropped:
        return x

    def outside(axis: Axis, o: Expr) -> Expr:
        position = c.b.let(source_position(c, axis, o))
        low, high = position < double(0), position > double(axis.size) - 1
        return cast(tirx.any(low, high), "int8")

    tables = {axis.number: _table(c.b, axis, "int8", partial(outside, axis)) for axis in cropped}

    def load(at: tuple[Expr, ...]) -> Expr:
        beyond: list[Expr] = [t[at[d]] > tirx.const(0, "int8") for d, t in tables.items()]
        value = x.load(at)
        fill = tirx.const(float(c.attr("extrapolation_value")), dtype_of(value))
        return tirx.Select(tirx.any(*beyond), fill, value)

    return TensorExpr(x.dtype, x.shape, load, x.cost + 2)


def _in_dtype(c: LowerContext, x: TensorExpr) -> TensorExpr:
    """Integers are rounded half to even and saturated; floats are rounded when stored."""
    name = c.out_dtype()
    t = c.types[0].dtype

    def load(at: tuple[Expr, ...]) -> Expr:
        value = x.load(at)
        if t.is_integer and dtype_of(value).startswith("float"):
            return saturate(round_even(value), name)
        return value

    return c.lazy(load, cost=x.cost)
