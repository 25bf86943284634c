"""Axis maps of elementwise ops, and of ops whose rows are independent."""

from __future__ import annotations

from .build import Builder, rule
from .map import AxisMap, Kind, whole


@rule
def elementwise(b: Builder) -> AxisMap | None:
    """Each result depends on the operands at its index, after broadcasting; all have one shape."""
    shape = b.out()
    axes = b.axes(shape)
    for i in range(len(b.inputs)):
        b.broadcast(i, axes, shape)
    for k in range(len(b.node.outputs)):
        b.give(axes, k)
    return b.build()


@rule
def first_elementwise(b: Builder) -> AxisMap | None:
    """The elements of the first operand; the others are parameters, the same for all of them."""
    axes = b.axes(b.shape())
    b.take(0, axes)
    for k in range(len(b.node.outputs)):
        b.give(axes, k)
    return b.build()


@rule
def dropout(b: Builder) -> AxisMap | None:
    """Elementwise, unless it draws random numbers, which depend on the position."""
    training = b.inputs[2].constant if b.has(2) and b.inputs[2] is not None else None
    if b.has(2) and (training is None or training.any()):
        return None
    axes = b.axes(b.shape())
    b.take(0, axes)
    b.give(axes)
    b.give(axes, 1)
    return b.build()


@rule
def halves(b: Builder) -> AxisMap | None:
    """``left * gelu(right)``: the last axis of data and bias is both halves in a row."""
    *lead, last = b.axes(b.out())
    pair = whole(b.factor(2, Kind.OPAQUE), *last[0].factors)
    b.take(0, [*lead, pair])
    b.take(1, [pair])
    b.give([*lead, last])
    return b.build()


@rule
def rows(b: Builder) -> AxisMap | None:
    """A matrix ``[N, columns]``; each row of the result is computed from one of its rows."""
    row, *_ = b.axes(b.shape()[:1])
    b.take(0, [row, b.opaque(b.shape()[1])])
    b.give([row, b.opaque(b.out()[1])])
    return b.build()


@rule
def leading(b: Builder) -> AxisMap | None:
    """Each element of the operand becomes a vector along a new last axis."""
    axes = b.axes(b.shape())
    b.take(0, axes)
    b.give([*axes, b.opaque(b.out()[-1])])
    return b.build()


__all__ = ["dropout", "elementwise", "first_elementwise", "halves", "leading", "rows"]
