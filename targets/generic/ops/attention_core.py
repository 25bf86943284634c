"""Attention for any target: the scores of a block of query rows for all keys, in workspace."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ...tir.builder import BufferTensor, Builder, Expr
from ...tir.contract import Contraction, contract
from ...tir.extents import as_int, index
from ...tir.numeric import compute_dtype, dtype_of
from ...tir.reduce import At, RowGroup, ceil_div, is_nan
from ...tir.scratch import scratch
from ...tir.softmax import softmax

BLOCK = 8
"""Query rows of a block, whose scores are in workspace together."""

Load = Callable[[Expr, Expr, Expr, Expr], Expr]


@dataclass(frozen=True)
class Heads:
    """Extents and operands: ``query(b, h, s, d)``, ``key(b, h, t, d)``, ``value(b, h, t, e)``.

    Loads give values of the compute type of ``element``, the IR type of queries and keys.
    """

    batch: Any
    heads: Any
    queries: Any
    keys: Any
    depth: Any
    width: Any
    query: Load
    key: Load
    value: Load
    element: str

    @property
    def dtype(self) -> str:
        return compute_dtype(self.element)


def attend(
    b: Builder,
    a: Heads,
    score: Callable[[At, Expr], Expr],
    store: Callable[[At, Expr], None],
    weight: Callable[[At, Expr], None] | None = None,
    masked: bool = True,
    guarded: bool = False,
) -> None:
    """Compute attention.

    ``score(at, product)`` computes the score at ``at = (b, h, s, t)`` from the product of query and
    key. A row of scores that are all -inf gives zeros if ``masked``, else NaN; rows of NaN weights
    count as 0 if ``guarded``. ``weight(at, value)`` is called with every softmax weight, and
    ``store((b, h, s, e), value)`` with every result, perhaps twice.
    """
    block = min(as_int(a.queries) or BLOCK // 2, BLOCK)
    tasks = (a.batch, a.heads, ceil_div(a.queries, block))
    memory = scratch(b, tasks, (block, a.keys), a.dtype, "scores")

    def task(at: At) -> None:
        n, h, tile = at
        first = b.let(tile * block, "row")
        known = as_int(a.queries)
        whole = known is not None and known % block == 0
        rows = block if whole else b.let(tirx.min(index(block), index(a.queries) - first))
        scores = memory(at)
        _scores(b, a, (n, h), first, rows, scores, score)
        with b.loop(rows) as r:
            _softmax_row(b, a.element, scores, r, masked)
            if guarded:
                _clear_nan(b, scores, r, a.keys)
            if weight is not None:
                with b.loop(a.keys) as t:
                    weight((n, h, first + r, t), scores[r, t])
        _weighted_sum(b, a, (n, h), first, rows, scores, store)

    work = block * (as_int(a.keys) or 256) * (as_int(a.depth) or 64) * 2
    b.nest(tasks, task, work, sequential_last=True)


def _scores(
    b: Builder, a: Heads, head: tuple[Expr, Expr], first: Expr, rows: Any, scores: BufferTensor,
    score: Callable[[At, Expr], Expr],
) -> None:  # fmt: skip
    product = Contraction(
        (), rows, a.keys, (a.depth,),
        lambda _at, r, d: a.query(*head, first + r, d[0]),
        lambda _at, d, t: a.key(*head, t, d[0]),
        lambda _at, r, t, value: scores.store((r, t), score((*head, first + r, t), b.let(value))),
        a.dtype,
    )  # fmt: skip
    contract(b, product, "inner")


def _softmax_row(b: Builder, element: str, scores: BufferTensor, r: Expr, masked: bool) -> None:
    g = RowGroup(b, scores.shape, (1,), (r,), b.loops.vector_bytes)
    softmax(b, g, element, scores.load, scores.store, scores.load, masked)


def _clear_nan(b: Builder, scores: BufferTensor, r: Expr, keys: Any) -> None:
    with b.loop(keys) as t:
        value = b.let(scores[r, t])
        zero = tirx.const(0, dtype_of(value))
        scores.store((r, t), tirx.Select(is_nan(value), zero, value))


def _weighted_sum(
    b: Builder, a: Heads, head: tuple[Expr, Expr], first: Expr, rows: Any, scores: BufferTensor,
    store: Callable[[At, Expr], None],
) -> None:  # fmt: skip
    product = Contraction(
        (), rows, a.width, (a.keys,),
        lambda _at, r, t: scores[r, t[0]],
        lambda _at, t, e: a.value(*head, t[0], e),
        lambda _at, r, e, value: store((*head, first + r, e), value),
        a.dtype,
    )  # fmt: skip
    contract(b, product, "columns")
