"""The residual of weights that were split in two (see :mod:`...ir.split_weights`), in a kernel.

After the main part of a register tile's reduction, each vector of columns does its listed steps
once more, with the residual's weights. All sums stay in their registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..generic.registry import TemplateContext
from ..tir.builder import BufferTensor
from ..tir.extents import flatten_index, index, product
from .microkernel import Place, RegisterTile

Expr = Any

_RESIDUAL, _STEPS, _STARTS = 3, 4, 5
"""The operands of ``kiln.ConvBlocked`` and ``kiln.MatMulPacked``."""
BORDER = 6
"""One of ``kiln.ConvBlocked`` only: the element in the border."""


class Residual:
    """The residual's steps for data ``x``, whose last dim holds whole steps; there may be none.

    Operands are found by their number, in steps of ``depth`` elements, in the memory of ``x``.
    ``operand(step)`` is the index in ``x`` of a step's operand, with a step for the last dim, less
    what differs between rows. A loop at the beginning of the kernel makes a list of these numbers,
    since several divisions for each step and tile would take longer than the products.
    """

    def __init__(
        self, ctx: TemplateContext, x: BufferTensor, depth: int,
        operand: Callable[[Expr], tuple[Expr, ...]],
    ) -> None:  # fmt: skip
        self.b = b = ctx.b
        self.given = ctx.has(_RESIDUAL)
        if not self.given:
            return
        steps = ctx.buffered(_STEPS)
        self.weights, self.starts = ctx.buffered(_RESIDUAL), ctx.buffered(_STARTS)
        self.dims = (*x.shape[:-1], index(x.shape[-1]) // depth)
        self.x = b.view(x, (product(x.shape),))
        self.offsets = b.workspace(steps.shape, "int64", "offsets")
        with b.loop(steps.shape[0]) as i:
            place = operand(b.let(index(steps[(i,)])))
            self.offsets.store((i,), flatten_index(place, self.dims))

    def add(self, acc: RegisterTile, tile: Expr, first: Callable[[int], tuple[Expr, ...]]) -> None:
        """Add the products of all steps of ``tile``; ``first(row)`` is where operands begin."""
        if not self.given:
            return
        b = self.b
        begin = [b.let(flatten_index(first(r), self.dims)) for r in range(acc.rows)]
        for v in range(acc.vectors):
            part = tile * acc.vectors + v
            start, end = (b.let(index(self.starts[(part + i,)])) for i in (0, 1))
            with b.loop(end - start) as i:
                offset = b.let(self.offsets[(start + i,)])

                def place(row: int, offset: Expr = offset) -> Place:
                    return self.x, (begin[row] + offset,)

                acc.step_of_vector(v, place, (self.weights, (start + i,)))
