"""Lowering of ``kiln.TreeEnsemble``: an example walks down several trees at a time.

A walk down one tree waits for memory at every node, so ``WALKS`` trees are walked together, whose
loads overlap. The nodes of these trees stay in the cache for all examples of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.extents import as_int, index
from ...tir.numeric import cast
from ..constants import literal
from ..registry import LowerContext, lowering

WALKS = 8
"""Trees that are walked down together."""

BLOCK = 16
"""Examples of a block, for all of which one group of trees is walked before the next."""

_START = {"sum": 0.0, "min": np.inf, "max": -np.inf}
_STEP: dict[str, Callable[[Expr, Expr], Expr]] = {
    "sum": lambda a, c: a + c, "min": tirx.min, "max": tirx.max,
}  # fmt: skip


@lowering("kiln.TreeEnsemble")
def _tree_ensemble(ctx: LowerContext) -> TensorExpr:
    x, out = ctx.buffered(0), ctx.result()
    nodes = [_table(ctx, i) for i in range(1, 6)]
    rest = [_table(ctx, i) if ctx.has(i) else None for i in range(6, 9)]
    forest = _Forest(ctx, x, out, *nodes, *rest)
    examples = x.shape[0]
    block = BLOCK if ctx.b.loops.vector_bytes else 1
    known = as_int(examples)
    blocks: Any = (
        -(-known // block) if known is not None
        else tirx.floordiv(index(examples) + (block - 1), index(block))
    )  # fmt: skip

    def body(at: tuple[Expr, ...]) -> None:
        first = ctx.b.let(at[0] * block)
        forest.run(first, tirx.min(index(block), index(examples) - first))

    cost = block * forest.trees * 64
    ctx.b.nest((blocks,), body, cost, sequential_last=True)
    return out


def _table(ctx: LowerContext, i: int) -> BufferTensor:
    """Input ``i`` in memory; a constant is stored there, one number at a time."""
    found = ctx.known(i)
    if found is None:
        return ctx.buffered(i)
    source = ctx.input(i)
    memory = ctx.b.workspace(source.shape, source.dtype, "table")

    def fill(_at: tuple[Expr, ...]) -> None:
        for at, value in np.ndenumerate(found):
            memory.store(at, literal(value, source.dtype))

    ctx.b.nest((), fill)
    return memory


@dataclass
class _Forest:
    """The inputs of the op (see its documentation); nodes from number ``count`` on are leaves."""

    ctx: LowerContext
    x: TensorExpr
    out: BufferTensor
    features: BufferTensor
    thresholds: BufferTensor
    children: BufferTensor
    roots: BufferTensor
    weights: BufferTensor
    starts: BufferTensor | None
    targets: BufferTensor | None
    missing: BufferTensor | None

    def __post_init__(self) -> None:
        sizes = [as_int(t.shape[0]) for t in (self.features, self.roots)]
        if sizes[0] is None or sizes[1] is None:
            raise self.ctx.error("the numbers of nodes and trees must be known")
        self.count, self.trees = sizes[0], sizes[1]
        self.aggregate = str(self.ctx.attr("aggregate"))
        self.width = int(self.ctx.attr("targets"))

    def start(self) -> Expr:
        return literal(_START[self.aggregate], self.out.dtype)

    def run(self, first: Expr, examples: Expr) -> None:
        """All trees for ``examples`` examples from ``first`` on."""
        b = self.ctx.b
        with b.loop(examples) as i, b.loop(self.width) as t:
            self.out.store((first + i, t), self.start())
        whole, rest = divmod(self.trees, WALKS)
        if whole:
            with b.loop(whole) as group, b.loop(examples) as i:
                self._walk(first + i, group * WALKS, WALKS)
        if rest:
            with b.loop(examples) as i:
                self._walk(first + i, index(whole * WALKS), rest)
        if self.aggregate != "sum":
            with b.loop(examples) as i, b.loop(self.width) as t:
                self._settle((first + i, t))

    def _settle(self, at: tuple[Expr, Expr]) -> None:
        """Set the result to 0 for a target that no leaf contributed to."""
        value = self.ctx.b.let(self.out[at])
        zero = literal(0, self.out.dtype)
        self.out.store(at, tirx.Select(tirx.EQ(value, self.start()), zero, value))

    def _walk(self, row: Expr, tree: Expr, walks: int) -> None:
        """Walk down ``walks`` trees, from ``tree`` on, and add the weights of their leaves."""
        b = self.ctx.b
        row = b.let(row)
        nodes = b.local((walks,), "int32", "node")
        for i in range(walks):
            nodes.store((i,), self.roots[tree + i])
        inside = b.scalar("bool", tirx.const(True, "bool"))
        leaf = tirx.const(self.count, "int32")
        with b.while_(inside.get()):
            lowest = leaf
            for i in range(walks):
                node = b.let(nodes[i])
                following = b.let(tirx.Select(node < leaf, self._child(row, node), node))
                nodes.store((i,), following)
                lowest = tirx.min(lowest, following)
            inside.set(lowest < leaf)
        for i in range(walks):
            self._add(row, b.let(index(nodes[i] - leaf)))

    def _child(self, row: Expr, node: Expr) -> Expr:
        """The child of ``node`` that a row goes to; for a leaf, that of the last inner node."""
        b = self.ctx.b
        at = b.let(index(tirx.min(node, tirx.const(self.count - 1, "int32"))))
        value = b.let(self.x[row, index(self.features[at])])
        first = value <= self.thresholds[at]
        if self.missing is not None:
            first = tirx.any(first, tirx.all(self.missing[at], tirx.isnan(value)))
        # TVM turns a negated comparison into the opposite one, which is wrong for NaN.
        return self.children[at, 1 - cast(first, "int64")]

    def _add(self, row: Expr, leaf: Expr) -> None:
        b = self.ctx.b
        if self.starts is None or self.targets is None:
            with b.loop(self.width) as t:
                self._step((row, t), self.weights[leaf, t])
            return
        begin = b.let(index(self.starts[leaf]))
        with b.loop(index(self.starts[leaf + 1]) - begin) as i:
            place = b.let(begin + i)
            self._step((row, index(self.targets[place])), self.weights[place])

    def _step(self, at: tuple[Expr, Expr], weight: Expr) -> None:
        self.out.store(at, _STEP[self.aggregate](self.out[at], weight))
