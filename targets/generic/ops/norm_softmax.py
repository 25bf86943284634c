"""Lowerings of ``Softmax`` and ``LogSoftmax``: shifted by the maximum of each row."""

from __future__ import annotations

from ....ir.shapes import normalize_axis
from ...tir import math
from ...tir.builder import BufferTensor, Builder, TensorExpr
from ...tir.numeric import compute_dtype
from ...tir.reduce import MAX_NUMBER, SUM, Group, collapse, for_groups
from ...tir.softmax import softmax
from ..registry import LowerContext, lowering

EXP_COST = 12


@lowering("Softmax", "LogSoftmax")
def _lower_softmax(ctx: LowerContext) -> TensorExpr:
    axis = normalize_axis(ctx.attr("axis"), ctx.input(0).rank)
    shape, axes = collapse(ctx.input(0).shape, [axis])
    x = ctx.b.view(ctx.buffered(0), shape)
    out = ctx.b.view(result := ctx.result(), shape)
    rule = _softmax_group if ctx.node.op == "Softmax" else _log_softmax_group
    for_groups(ctx.b, shape, axes, lambda g: rule(ctx.b, g, x, out), x.compute_dtype, cost=EXP_COST)
    return result


def _softmax_group(b: Builder, g: Group, x: TensorExpr, out: BufferTensor) -> None:
    # Narrower floats would be rounded when stored, so their exponentials are computed twice.
    exact = compute_dtype(out.dtype) == out.dtype
    softmax(b, g, x.dtype, x.load, out.store, out.load if exact else None, masked=False)


def _log_softmax_group(b: Builder, g: Group, x: TensorExpr, out: BufferTensor) -> None:
    dtype = x.compute_dtype
    peak = g.fold(x.load, MAX_NUMBER, dtype)
    total = g.fold(lambda at: math.exp_flush(b, x[at] - peak()), SUM, dtype)
    shift = g.hold(lambda: math.log(b, total()), dtype)
    g.each(lambda at: out.store(at, (x[at] - peak()) - shift()))
