"""Vectors whose lanes belong to blocks of weights, each with a scale."""

from __future__ import annotations

from tvm import tirx

from ..tir.builder import BufferTensor, Expr
from ..tir.extents import index


def ramp(lanes: int) -> Expr:
    """The indices of a vector's elements from 0 on."""
    return tirx.Ramp(index(0), index(1), lanes)


def filled(value: float, lanes: int) -> Expr:
    """A float32 number in all lanes."""
    return tirx.Broadcast(tirx.const(value, "float32"), lanes)


def spread(values: BufferTensor, at: tuple[Expr, ...], blocks: int, lanes: int) -> Expr:
    """The first ``blocks`` numbers at ``values[at]``, each in all lanes of its block."""
    if blocks == 1:
        return tirx.Broadcast(values[(*at, index(0))], lanes)
    held = values.load_raw([*at, ramp(blocks)])
    order = [tirx.IntImm("int32", lane * blocks // lanes) for lane in range(lanes)]
    return tirx.Shuffle([held] * (lanes // blocks), order)  # copies, as there must be lanes enough


def added(vector: BufferTensor, lanes: int) -> Expr:
    """The sum of all lanes of a local vector, by halves; the vector is used up."""
    half = lanes // 2
    while half:
        low, high = (
            index(i) if half == 1 else tirx.Ramp(index(i), index(1), half) for i in (0, half)
        )
        vector.store_raw([low], vector.load_raw([low]) + vector.load_raw([high]))
        half //= 2
    return vector[(index(0),)]


__all__ = ["added", "filled", "ramp", "spread"]
