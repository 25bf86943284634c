"""Lowerings of ``DFT`` and ``STFT``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx

from ....ir.ops.linalg_fourier import dft_axis
from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.extents import as_int, index
from ...tir.fourier import real_spectrum, transform_plan, transform_point
from ...tir.fourier_stages import Load
from ...tir.fourier_tables import Complex
from ...tir.numeric import cast, dtype_of
from ...tir.scratch import scratch
from ..registry import LowerContext, lowering, sizes

At = tuple[Expr, ...]


@lowering("DFT")
def _lower_dft(ctx: LowerContext) -> TensorExpr:
    x = ctx.buffered(0)
    axis = dft_axis(ctx, x.rank)
    candidates = range(x.rank - 1) if axis is None else [axis]
    lengths = {d: as_int(_length(ctx, x.shape[d])) for d in candidates}
    if None in lengths.values():
        return _plain_dft(ctx, x)
    out = ctx.result()
    for d, n in lengths.items():
        if n is not None and n > 0:
            _fast_dft(ctx, x, out, d, n, guarded=axis is None)
    return out


def _fast_dft(
    ctx: LowerContext, x: BufferTensor, out: BufferTensor, axis: int, n: int, guarded: bool
) -> None:
    """Transform along ``axis``; if ``guarded``, only where that is the axis given at run time."""
    lead = [e for i, e in enumerate(out.shape[:-1]) if i != axis]

    def signal(at: At, i: Expr) -> Complex:
        return _element(x, (*at[:axis], i, *at[axis:]))

    def store(at: At, k: Expr, value: Complex) -> None:
        _store(out, (*at[:axis], k, *at[axis:]), value)

    row = _fast_row(ctx, lead, n, x.shape[axis], out.shape[axis], signal, store)

    def guarded_row(at: At) -> None:
        with ctx.b.when(_axis(ctx, x.rank).equal(index(axis))):
            row(at)

    ctx.b.nest(lead, guarded_row if guarded else row, cost=20 * n, sequential_last=True)


def _fast_row(
    ctx: LowerContext, lead: Sequence[Any], n: int, count: Any, bins: Any,
    signal: Callable[[At, Expr], Complex], store: Callable[[At, Expr, Complex], None],
) -> Callable[[At], None]:  # fmt: skip
    """A function that transforms ``count`` elements of ``signal`` at an index into ``lead``."""
    inverse = bool(ctx.attr("inverse"))
    x = ctx.input(0)
    dtype = x.compute_dtype
    mirrored = as_int(x.shape[-1]) == 1 and not inverse
    plan = transform_plan(
        ctx.b, n, inverse, dtype, _elements(ctx, n, count), n // 2 + 1 if mirrored else n
    )
    first, second = (scratch(ctx.b, lead, (2, plan.length), dtype, "row") for _ in range(2))

    def row(at: At) -> None:
        load = _spectrum(ctx, lambda i: signal(at, i), count, index(n))
        result = plan.transform((first(at), second(at)), load)
        if mirrored:
            result = real_spectrum(result, n)
        with ctx.b.loop(bins) as k:
            store(at, k, _normalized(result(k), index(n), inverse))

    return row


def _elements(ctx: LowerContext, n: int, count: Any) -> int:
    """The number of elements from which on the signal of a transform of length ``n`` is zero."""
    known = as_int(count)
    if known is None or (ctx.attr("inverse") and ctx.attr("onesided")):
        return n
    return max(1, min(known, n))


def _plain_dft(ctx: LowerContext, x: BufferTensor) -> TensorExpr:
    """The transform by its definition, for lengths or axes that are only known at run time."""
    out = ctx.result()

    def body(at: At) -> None:
        axis = _axis(ctx, x.rank)
        count = _along(axis, [index(e) for e in x.shape[:-1]])
        n = ctx.b.let(index(_length(ctx, count)))

        def signal(i: Expr) -> Complex:
            where = [tirx.Select(axis.equal(index(d)), i, at[d]) for d in range(x.rank - 1)]
            return _element(x, where)

        load = _spectrum(ctx, signal, count, n)
        inverse = bool(ctx.attr("inverse"))
        value = transform_point(ctx.b, n, _along(axis, at), n, inverse, load)
        _store(out, at, _normalized(value, n, inverse))

    ctx.b.nest(out.shape[:-1], body, cost=10_000, sequential_last=True)
    return out


def _axis(ctx: LowerContext, rank: int) -> Expr:
    known = dft_axis(ctx, rank)
    if known is not None:
        return index(known)
    axis = ctx.b.let(index(_scalar_input(ctx, 2)))
    return ctx.b.let(tirx.Select(axis < 0, axis + rank, axis))


def _along(axis: Expr, items: Sequence[Expr]) -> Expr:
    """``items[axis]``."""
    found = items[0]
    for d, item in enumerate(items[1:], 1):
        found = tirx.Select(axis.equal(index(d)), item, found)
    return found


def _scalar_input(ctx: LowerContext, i: int) -> Expr:
    x = ctx.input(i)
    return x[tuple(index(0) for _ in x.shape)]


def _length(ctx: LowerContext, count: Any) -> Any:
    """The transform's length for ``count`` elements along its axis."""
    known = ctx.known(1)
    if known is not None:
        return int(known.reshape(-1)[0])
    if ctx.has(1):
        return index(_scalar_input(ctx, 1))
    both = ctx.attr("inverse") and ctx.attr("onesided")
    return 2 * (count - 1) if both else count


def _element(x: TensorExpr, at: Sequence[Expr]) -> Complex:
    re = x.at(*at, 0)
    is_complex = as_int(x.shape[-1]) == 2
    return re, x.at(*at, 1) if is_complex else tirx.const(0, dtype_of(re))


def _store(out: BufferTensor, at: Sequence[Expr], value: Complex) -> None:
    for part in range(as_int(out.shape[-1]) or 2):
        out.store((*at, index(part)), value[part])


def _normalized(value: Complex, n: Expr, inverse: bool) -> Complex:
    if not inverse:
        return value
    re, im = value
    scale = cast(n, dtype_of(re))
    return re / scale, im / scale


def _spectrum(ctx: LowerContext, load: Load, count: Any, n: Expr) -> Load:
    """The signal to transform: ``load``, padded with zeros, or mirrored if it is one-sided."""
    if not (ctx.attr("inverse") and ctx.attr("onesided")):
        return lambda i: _padded(load, i, count)

    def mirrored(i: Expr) -> Complex:
        upper = i * 2 > n
        re, im = _padded(load, tirx.Select(upper, n - i, i), count)
        zero = tirx.const(0, dtype_of(im))
        own_mirror = tirx.any(i.equal(index(0)), (i * 2).equal(n))
        return re, tirx.Select(own_mirror, zero, tirx.Select(upper, zero - im, im))

    return mirrored


def _padded(load: Load, i: Expr, count: Any) -> Complex:
    """``load(i)``, or zeros from ``count`` on."""
    re, im = load(tirx.max(tirx.min(i, index(count) - 1), index(0)))
    inside = i < index(count)
    zero = tirx.const(0, dtype_of(re))
    return tirx.Select(inside, re, zero), tirx.Select(inside, im, zero)


@sizes("DFT")
def _dft_sizes(ctx: LowerContext) -> list[Expr]:
    x = ctx.input(0)
    axis = _axis(ctx, x.rank)
    shape = [index(e) for e in x.shape[:-1]]
    n = index(_length(ctx, _along(axis, shape)))
    bins = _bins(ctx, n)
    if dft_axis(ctx, x.rank) is not None:
        return [bins]
    return [tirx.Select(axis.equal(index(d)), bins, e) for d, e in enumerate(shape)]


def _bins(ctx: LowerContext, n: Expr) -> Expr:
    one_sided = ctx.attr("onesided") and not ctx.attr("inverse")
    return tirx.floordiv(n, index(2)) + 1 if one_sided else n


# ---- STFT ----------------------------------------------------------------------------------------


@lowering("STFT")
def _lower_stft(ctx: LowerContext) -> TensorExpr:
    x = ctx.buffered(0)
    out = ctx.result()
    n = as_int(_frame_length(ctx))

    def signal(at: At, i: Expr) -> Complex:
        place = tirx.min(at[1] * index(_scalar_input(ctx, 1)) + i, index(x.shape[1]) - 1)
        value = _element(x, (at[0], place))
        return value if not ctx.has(2) else _weighted(value, ctx.input(2)[i])

    def store(at: At, k: Expr, value: Complex) -> None:
        _store(out, (*at, k), value)

    if n is not None:
        row = _fast_row(ctx, out.shape[:2], n, n, out.shape[2], signal, store)
        ctx.b.nest(out.shape[:2], row, cost=20 * n, sequential_last=True)
        return out

    def point(at: At) -> None:
        length = ctx.b.let(index(_frame_length(ctx)))
        value = transform_point(ctx.b, length, at[2], length, False, lambda i: signal(at[:2], i))
        store(at[:2], at[2], value)

    ctx.b.nest(out.shape[:3], point, cost=10_000, sequential_last=True)
    return out


def _weighted(value: Complex, weight: Expr) -> Complex:
    re, im = value
    return re * cast(weight, dtype_of(re)), im * cast(weight, dtype_of(re))


def _frame_length(ctx: LowerContext) -> Any:
    if ctx.has(2):
        return ctx.input(2).shape[0]
    if not ctx.has(3):
        return ctx.input(0).shape[1]
    known = ctx.known(3)
    return index(_scalar_input(ctx, 3)) if known is None else int(known.reshape(-1)[0])


@sizes("STFT")
def _stft_sizes(ctx: LowerContext) -> list[Expr]:
    n = index(_frame_length(ctx))
    step = index(_scalar_input(ctx, 1))
    frames = tirx.floordiv(index(ctx.input(0).shape[1]) - n, step) + 1
    # The frame length is known to inference wherever it is a dim or a constant.
    computed = ctx.has(3) and not ctx.has(2) and ctx.known(3) is None
    return [frames, _bins(ctx, n)] if computed else [frames]
