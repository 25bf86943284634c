"""Packing of operands at run time, inside the kernel, where they are no constants."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ..generic.ops.movement_transpose import transposed_rows
from ..tir.builder import BufferTensor, Builder, TensorExpr
from ..tir.extents import as_int, index
from ..tir.lanes import load_lanes

Expr = Any


def tiles_of(extent: Any, width: int) -> Any:
    """How many tiles of ``width`` cover ``extent``."""
    known = as_int(extent)
    if known is not None:
        return -(-known // width)
    return tirx.floordiv(index(extent) + index(width - 1), index(width))


def pack_columns(
    b: Builder, out: BufferTensor, lead: tuple[Expr, ...], tile: Expr, depth: Any, columns: Any,
    width: int, element: Callable[[Expr, Expr], Expr],
) -> None:  # fmt: skip
    """Pack one tile of columns: ``out[*lead, k, c] = element(k, tile*width + c)``.

    ``out`` has ``depth`` rows of ``width``; there are zeros where a column is past ``columns``.
    """
    start = b.let(tile * width, "start")
    zero = tirx.const(0, out.compute_dtype)
    known = as_int(columns)

    def whole() -> None:
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


def pack_rows(
    b: Builder, out: BufferTensor, lead: tuple[Expr, ...], first: Expr, rows: Any, lanes: int,
    x: TensorExpr, at: tuple[Expr, ...],
) -> None:  # fmt: skip
    """Pack rows as columns: ``out[*lead, k, c] = x[*at, first + c, k]`` for float32 ``x``.

    Squares of ``lanes`` by ``lanes`` elements are transposed in registers. Where ``first + c`` is
    past the last of ``rows``, the last row is repeated.
    """
    depth, width = x.shape[-1], int(out.shape[-1])
    start = b.let(index(first), "start")
    whole = tirx.floordiv(index(depth), index(lanes))

    def place(column: Expr) -> tuple[Expr, ...]:
        return (*at, tirx.min(start + column, index(rows) - 1))

    with b.loop(width // lanes) as block, b.loop(whole) as step:
        turned = transposed_rows(
            b, [load_lanes(b, x, place(block * lanes + j), step * lanes, lanes)
                for j in range(lanes)]
        )  # fmt: skip
        for i, vector in enumerate(turned):
            ramp = tirx.Ramp(b.let(block * lanes), index(1), lanes)
            out.store_raw([*lead, step * lanes + i, ramp], vector)
    with b.loop(index(depth) - whole * lanes) as k, b.loop(width) as c:
        rest = whole * lanes + k
        out.store((*lead, rest, c), x[(*place(c), rest)])
