"""Lowerings of pools."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from tvm import tirx

from ....ir.windows import Window, pool_window
from ...tir import floats, math
from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import as_int, index, product, static_product
from ...tir.numeric import cast, dtype_of
from ...tir.reduce import MAX, SUM, Group, Monoid, collapse, for_groups, lowest
from ..registry import LowerContext, lowering
from .conv import geometry_of
from .conv_rows import Geometry
from .pool_windows import Pool, pool_windows, taps_inside


def _window(c: LowerContext) -> tuple[Window, Geometry]:
    """The pool's window, as the IR describes it and as the kernel does."""
    source = c.input_types[0]
    assert source is not None
    window = pool_window(c.node, source.dims[2:])
    return window, pool_geometry(c, window)


def pool_geometry(c: LowerContext, window: Window) -> Geometry:
    """A window as a kernel sees it; with ``ceil_mode`` any window may reach past the input."""
    geometry = geometry_of(c, window)
    if c.attr("ceil_mode"):
        return replace(geometry, guarded=(True,) * len(geometry.kernel))
    return geometry


@lowering("MaxPool")
def lower_max_pool(c: LowerContext) -> list[TensorExpr | None]:
    """MaxPool-22; NaN wins, and the index is that of the first of equals, or of the first NaN."""
    window, geometry = _window(c)
    if len(c.types) > 1:
        return _max_pool_with_indices(c, geometry)
    out = c.result()
    _max_windows(c.b, c.input(0), geometry, out)
    return [out]


_MOST_AT_ONCE = 32
"""Positions of a window up to which their maximum is taken at once."""


def _max_windows(b: Builder, x: TensorExpr, g: Geometry, out: BufferTensor) -> None:
    """The maxima of windows; those of large ones along the last dim first, then along the others.

    A window of 13x13 then takes 26 comparisons instead of 169, and one more image in memory.
    """
    wide = [d for d, k in enumerate(g.kernel) if as_int(k) != 1]
    taps = static_product(g.kernel)
    if len(wide) > 1 and (taps is None or taps > _MOST_AT_ONCE):
        *others, last = wide
        shape = [*x.shape]
        shape[2 + last] = out.shape[2 + last]
        lines = b.workspace(shape, out.dtype, "lines")
        _max_windows(b, x, g.along([last]), lines)
        x, g = lines, g.along(others)
    fill = lowest(out.compute_dtype)
    pool_windows(b, Pool(x, g, out, fill, larger, lambda value, _at: value))


def larger(a: Expr, b: Expr) -> Expr:
    """The larger of two elements; NaN wins."""
    return floats.larger(a, b) if dtype_of(a).startswith("float") else tirx.max(a, b)


def _wins(value: Expr, best: Expr) -> Expr:
    """Is an element larger than the best before it, or the first NaN?"""
    if not dtype_of(value).startswith("float"):
        return value > best
    first_nan = tirx.all(floats.is_nan(value), tirx.Not(floats.is_nan(best)))
    return tirx.any(value > best, first_nan)


def _max_pool_with_indices(c: LowerContext, g: Geometry) -> list[TensorExpr | None]:
    b, x, out, places = c.b, c.buffered(0), c.result(0), c.result(1)
    spatial = x.shape[2:]

    def body(at: tuple[Expr, ...]) -> None:
        n, channel, *o = at
        best = b.scalar(x.compute_dtype, lowest(x.compute_dtype))
        found = b.scalar("int64", -1)
        with b.grid(*g.kernel) as k:
            where = [
                b.let(o[d] * g.strides[d] + k[d] * g.dilations[d] - g.begin[d])
                for d in range(len(spatial))
            ]
            inside = [
                t for i, e in zip(where, spatial, strict=True) for t in (i >= 0, i < index(e))
            ]
            with b.when(tirx.all(*inside)):
                value = b.let(x.at(n, channel, *where))
                with b.when(tirx.any(_wins(value, best.get()), found.get() < 0)):
                    best.set(value)
                    found.set(_flat(where, spatial, bool(c.attr("storage_order"))))
        plane = (n * index(x.shape[1]) + channel) * index(product(spatial))
        out.store(at, best.get())
        places.store(at, plane + found.get())

    b.nest(out.shape, body, cost=8, sequential_last=True)
    return [out, places]


def _flat(where: Sequence[Expr], extents: Sequence[Any], column_major: bool) -> Expr:
    """The flat index within a plane; column-major counts the first dim fastest."""
    pairs = list(zip(where, extents, strict=True))
    flat: Expr = index(0)
    for i, e in reversed(pairs) if column_major else pairs:
        flat = flat * index(e) + i
    return flat


@lowering("AveragePool")
def lower_average_pool(c: LowerContext) -> TensorExpr:
    """AveragePool-22: sums in float32 (float64 for float64), divided by the number of elements."""
    window, geometry = _window(c)
    out, x = c.result(), c.input(0)
    count = counter(c, window, geometry, x.shape[2:])

    def finish(total: Expr, at: Sequence[Expr]) -> Expr:
        return total / cast(count(at), dtype_of(total))

    zero = tirx.const(0, x.compute_dtype)
    pool_windows(c.b, Pool(x, geometry, out, zero, lambda a, v: a + v, finish))
    return out


def counter(c: LowerContext, window: Window, g: Geometry, spatial: Sequence[Any]) -> Any:
    """A function from an output's spatial indices to the number of elements that it averages."""
    with_pads = bool(c.attr("count_include_pad"))
    ends = [c.b.dim(p) for p in window.end]

    def count(at: Sequence[Expr]) -> Expr:
        total: Expr = index(1)
        for d, o in enumerate(at):
            low = 0 if with_pads else g.begin[d]
            high = g.begin[d] + spatial[d] + (ends[d] if with_pads else 0)
            total = total * (taps_inside(g, d, o, low, high) if varies(d) else g.kernel[d])
        return total

    def varies(d: int) -> bool:
        return bool(c.attr("ceil_mode")) or (g.guarded[d] and not with_pads)

    return count


@lowering("LpPool")
def lower_lp_pool(c: LowerContext) -> TensorExpr:
    """LpPool-22: the p-norm of each window."""
    _, geometry = _window(c)
    out, x = c.result(), c.input(0)
    norm = Norm(c)
    powers = TensorExpr(x.dtype, x.shape, lambda at: norm.power(x.load(at)), x.cost + 4)
    zero = tirx.const(0, x.compute_dtype)
    pool_windows(
        c.b, Pool(powers, geometry, out, zero, lambda a, v: a + v, lambda v, _at: norm.root(v))
    )
    return out


class Norm:
    """The scalar functions of a p-norm: ``root(sum of power(x))``."""

    def __init__(self, c: LowerContext) -> None:
        self.b = c.b
        self.p = int(c.attr("p") or 2)

    def power(self, x: Expr) -> Expr:
        magnitude = self.b.let(tirx.abs(x))
        result = magnitude
        for _ in range(self.p - 1):
            result = result * magnitude
        return result

    def root(self, total: Expr) -> Expr:
        if self.p == 1:
            return total
        if self.p == 2:
            return tirx.sqrt(total)
        scaled = math.log(self.b, total) * tirx.const(1 / self.p, dtype_of(total))
        return math.exp(self.b, self.b.let(scaled))


@lowering("GlobalAveragePool")
def lower_global_average_pool(c: LowerContext) -> TensorExpr:
    """The mean over all spatial dims."""
    count = product(c.input(0).shape[2:])
    return _global(c, SUM, lambda v: v, lambda total: total / cast(index(count), dtype_of(total)))


@lowering("GlobalMaxPool")
def lower_global_max_pool(c: LowerContext) -> TensorExpr:
    """The maximum over all spatial dims."""
    return _global(c, MAX, lambda v: v, lambda peak: peak)


@lowering("GlobalLpPool")
def lower_global_lp_pool(c: LowerContext) -> TensorExpr:
    """The p-norm over all spatial dims."""
    norm = Norm(c)
    return _global(c, SUM, norm.power, norm.root)


def _global(c: LowerContext, monoid: Monoid, before: Any, after: Any) -> TensorExpr:
    x, out = c.input(0), c.result()
    axes = range(2, x.rank)
    shape, merged = list(x.shape), list(axes)
    if isinstance(x, BufferTensor):
        shape, merged = collapse(x.shape, axes)
        x = c.b.view(x, shape)
    flat = c.b.view(out, [e for i, e in enumerate(shape) if i not in merged])
    source, dtype = x, x.compute_dtype

    def program(g: Group) -> None:
        total = g.fold(lambda at: before(source[at]), monoid, dtype)
        g.once(lambda at: flat.store(at, after(total())))

    for_groups(c.b, shape, merged, program, dtype, cost=1 + x.cost)
    return out
