"""Packing of operands inside kernels, for matrices that are only known at run time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ..tir.builder import BufferTensor, Builder, as_int, index

Expr = Any


def tiles_of(extent: Any, width: int) -> Any:
    """How many tiles of ``width`` cover ``extent``."""
    known = as_int(extent)
    if known is not None:
        return -(-known // width)
    return tirx.floordiv(index(extent) + index(width - 1), index(width))


def pack_columns(
    b: Builder, out: BufferTensor, lead: tuple[Expr, ...], tile: Expr, depth: Any, columns: Any,
    width: int, element: Callable[[Expr, Expr], Expr], transposed: bool = False,
) -> None:  # fmt: skip
    """out[*lead, k, c] = element(k, tile*width + c) for one tile; columns past the end are zero.

    ``transposed``: the source is contiguous along k, so that is the inner loop.
    """
    start = b.let(tile * width, "start")
    zero = tirx.const(0, out.compute_dtype)
    known = as_int(columns)

    def whole() -> None:
        if transposed:
            with b.loop(width) as c, b.loop(depth) as k:
                out.store((*lead, k, c), element(k, start + c))
        else:
            with b.loop(depth) as k, b.lanes(width) as c:
                out.store((*lead, k, c), element(k, start + c))

    def ragged() -> None:
        with b.loop(depth) as k, b.loop(width) as c:
            column = start + c
            inside = column < index(columns)
            value = element(k, tirx.min(column, index(columns) - 1))
            out.store((*lead, k, c), tirx.Select(inside, value, zero))

    if known is not None and known % width == 0:
        whole()
        return
    fits = start + width <= index(columns)
    with b.when(fits):
        whole()
    with b.when(tirx.Not(fits)):
        ragged()
