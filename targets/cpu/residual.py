"""Steps of packed weights that stand in a list (see :mod:`...ir.split_weights`), in a kernel.

After the main part of a register tile's reduction, if there is one, each vector of columns does its
listed steps. All sums stay in their registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx
from tvm.sym import Analyzer

from ..generic.registry import TemplateContext
from ..tir.builder import BufferTensor
from ..tir.extents import as_int, flatten_index, index, product
from .kernel_shapes import RESIDUAL, STARTS, STEPS
from .microkernel import Place, RegisterTile
from .prefetch import LINE, prefetch

Expr = Any

BORDER = 6
"""An operand of ``kiln.ConvBlocked`` only: the element in the border."""
_WEIGHTS_AHEAD, _OPERANDS_AHEAD = 12, 4
"""Entries of the list from the one that is multiplied to the one that is prefetched."""
_BYTES_OF_STEP = 4
"""Bytes of an operand: a float, or four 8-bit integers."""
_SUMS = 4
"""Sums that are added to in turn: until the result of a multiply-add is there, as many others have
begun."""


class Residual:
    """The listed steps for data ``x``, whose last dim holds whole steps; there may be none.

    Operands are found by their number, in steps of ``depth`` elements, in the memory of ``x``.
    ``operand(step)`` is the index in ``x`` of a step's operand, with a step for the last dim, less
    what differs between rows; ``neighbours`` are rows whose operands follow each other in memory.
    A loop at the beginning of the kernel makes a list of these numbers, since several divisions
    for each step and tile would take longer than the products.
    """

    def __init__(
        self, ctx: TemplateContext, x: BufferTensor, depth: int,
        operand: Callable[[Expr], tuple[Expr, ...]], neighbours: bool = False,
    ) -> None:  # fmt: skip
        self.b = b = ctx.b
        self.given = ctx.has(RESIDUAL)
        self.depth, self.neighbours = depth, neighbours
        if not self.given:
            return
        steps = ctx.buffered(STEPS)
        self.weights, self.starts = ctx.buffered(RESIDUAL), ctx.buffered(STARTS)
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
        begin = self._begin(acc.rows, first)
        for v in range(acc.vectors):
            part = tile * acc.vectors + v
            start, end = (b.let(index(self.starts[(part + i,)])) for i in (0, 1))
            with b.loop(end - start) as i:
                self._step(acc, v, begin, start + i)

    def add_alone(
        self, acc: RegisterTile, tile: Expr, first: Callable[[int], tuple[Expr, ...]]
    ) -> None:
        """:meth:`add` for a tile of one vector that has no main part.

        With few rows, several partial sums take turns, since each multiply-add would have to wait
        for the one before it.
        """
        b, ways = self.b, max(1, _SUMS // acc.rows)
        begin = self._begin(acc.rows, first)
        start, end = (b.let(index(self.starts[(tile + i,)])) for i in (0, 1))
        others = [RegisterTile(b, acc.rows, 1, acc.dot) for _ in range(ways - 1)]
        for other in others:
            other.zero()
        turns = b.let((end - start) // ways)
        with b.loop(turns) as turn:
            for way, sums in enumerate((acc, *others)):
                self._prefetch(acc.rows, begin, start + turn * ways + way)
                self._step(sums, 0, begin, start + turn * ways + way)
        with b.loop(end - start - turns * ways) as i:
            self._step(acc, 0, begin, start + turns * ways + i)
        for other in others:
            acc.include(other)

    def _begin(self, rows: int, first: Callable[[int], tuple[Expr, ...]]) -> list[Expr]:
        """Where the operands of the first row begin, and how far those of the others are from it.

        Distances that are known become part of an instruction; else each is in a register.
        """
        b, analyzer = self.b, Analyzer()
        starts = [flatten_index(first(r), self.dims) for r in range(rows)]
        apart = [analyzer.simplify(start - starts[0]) for start in starts[1:]]
        return [b.let(starts[0]), *(d if as_int(d) is not None else b.let(d) for d in apart)]

    def _prefetch(self, rows: int, begin: list[Expr], entry: Expr) -> None:
        """Prefetch weights, and where rows are neighbours the operands, of entries to come.

        Operands lie wherever the list says, which hardware cannot foresee.
        """
        b, last = self.b, index(self.offsets.shape[0]) - 1
        prefetch(b, self.weights, (tirx.min(entry + _WEIGHTS_AHEAD, last), index(0)))
        if not self.neighbours:
            return
        origin = b.let(begin[0] + self.offsets[(tirx.min(entry + _OPERANDS_AHEAD, last),)])
        for row in range(0, rows, LINE // _BYTES_OF_STEP):
            prefetch(b, self.x, ((origin + row) * self.depth,))

    def _step(self, acc: RegisterTile, vector: int, begin: list[Expr], entry: Expr) -> None:
        """The products of one entry of the list."""
        origin = self.b.let(begin[0] + self.offsets[(entry,)])

        def place(row: int) -> Place:
            return self.x, (origin + begin[row] if row else origin,)

        acc.step_of_vector(vector, place, (self.weights, (entry,)))
