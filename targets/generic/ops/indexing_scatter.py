"""Lowerings of ScatterElements and ScatterND.

Updates of the same element are applied in their order, so that duplicates are combined as ONNX
defines it. Updates that cannot be of the same element run in parallel.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import as_int, index, product, unflatten
from ..registry import LowerContext, lowering
from .movement_params import At, replaced, within

TAIL = 256
"""Neighbouring elements of a slice that one task of ScatterND updates."""


def _from_end(b: Builder, i: Expr, extent: Any) -> Expr:
    i = b.let(index(i))
    return b.let(tirx.Select(i < 0, i + index(extent), i))


def _update(ctx: LowerContext, out: BufferTensor) -> Callable[[At, Expr], None]:
    """A function that applies an update to the element at an index."""
    rule = _REDUCTIONS.get(ctx.attr("reduction") or "none")
    if rule is None:
        raise ctx.error(f"reduction {ctx.attr('reduction')!r} is not known")

    def update(at: At, value: Expr) -> None:
        out.store(at, rule(out[at], value))

    return update


def _is_bool(value: Expr) -> bool:
    return str(value.ty.dtype) == "bool"


_REDUCTIONS: dict[str, Callable[[Expr, Expr], Expr]] = {
    "none": lambda _old, new: new,
    "add": lambda old, new: tirx.any(old, new) if _is_bool(old) else old + new,
    "mul": lambda old, new: tirx.all(old, new) if _is_bool(old) else old * new,
    "max": lambda old, new: tirx.any(old, new) if _is_bool(old) else tirx.max(old, new),
    "min": lambda old, new: tirx.all(old, new) if _is_bool(old) else tirx.min(old, new),
}


@lowering("ScatterElements")
def _scatter_elements(ctx: LowerContext) -> TensorExpr:
    """Only updates along ``axis`` can be of one element: that axis runs in order, others in
    parallel.
    """
    b, x, indices, updates = ctx.b, ctx.input(0), ctx.input(1), ctx.input(2)
    out = ctx.result()
    axis = ctx.attr("axis") % x.rank
    update = _update(ctx, out)
    b.fill(out, x)

    def body(lines: At) -> None:
        with b.loop(indices.shape[axis]) as k:
            at = (*lines[:axis], k, *lines[axis:])
            where = _from_end(b, indices[at], x.shape[axis])
            with b.when(within(where, x.shape[axis])):
                update(replaced(at, axis, where), updates[at])

    along = as_int(indices.shape[axis]) or 64
    lines = (*indices.shape[:axis], *indices.shape[axis + 1 :])
    b.nest(lines, body, along * (4 + updates.cost), sequential_last=True)
    return out


@lowering("ScatterND")
def _scatter_nd(ctx: LowerContext) -> TensorExpr:
    """Every task applies all index tuples in order, to its own part of the slices."""
    b, x, indices, updates = ctx.b, ctx.input(0), ctx.input(1), ctx.input(2)
    out = ctx.result()
    depth = as_int(indices.shape[-1])
    assert depth is not None
    update = _update(ctx, out)
    b.fill(out, x)
    tail = x.shape[depth:]
    length = product(tail)
    tuples = product(indices.shape[:-1])

    def body(at: At) -> None:
        start = b.let(at[0] * TAIL)
        size = b.let(tirx.min(index(TAIL), index(length) - start))
        with b.loop(tuples) as t:
            lead = tuple(b.let(v) for v in unflatten(t, indices.shape[:-1]))
            where = [_from_end(b, indices[(*lead, k)], x.shape[k]) for k in range(depth)]
            inside = [within(w, x.shape[k]) for k, w in enumerate(where)]
            # An empty index tuple stands for the whole tensor.
            met = tirx.all(*inside) if inside else tirx.const(True, "bool")
            with b.when(met), b.loop(size) as i:
                rest = tuple(b.let(v) for v in unflatten(start + i, tail))
                update((*where, *rest), updates[(*lead, *rest)])

    work = (as_int(tuples) or 64) * TAIL * (1 + updates.cost)
    b.nest((_chunks(length),), body, work, sequential_last=True)
    return out


def _chunks(length: Any) -> Any:
    known = as_int(length)
    if known is not None:
        return -(-known // TAIL)
    return tirx.floordiv(length + index(TAIL - 1), index(TAIL))
