"""Lowerings of the recurrent relatives of attention: ``LinearAttention``, ``CausalConvWithState``.

Linear attention keeps a matrix S [d_k, d_v] a head, updated for every position:

    S <- exp(g) S                          (gated)
    v <- beta (v - S^T k)                  (delta)
    S <- S + k v^T,   o = scale * S^T q
"""

from __future__ import annotations

import math as pymath
from collections.abc import Callable
from typing import Any

from tvm import tirx

from ...tir import math
from ...tir.builder import BufferTensor, Expr, TensorExpr
from ...tir.extents import as_int, index
from ...tir.numeric import cast, dtype_of
from ...tir.reduce import At
from ...tir.scratch import scratch
from ..registry import LowerContext, lowering
from .attention import rows_of


@lowering("LinearAttention")
def _lower_linear_attention(ctx: LowerContext) -> list[TensorExpr]:
    return _LinearAttention(ctx).emit()


class _LinearAttention:
    def __init__(self, ctx: LowerContext) -> None:
        self.ctx = ctx
        self.b = ctx.b
        heads, kv_heads = ctx.attr("q_num_heads"), ctx.attr("kv_num_heads")
        self.q = rows_of(ctx, ctx.buffered(0), heads)
        self.k = rows_of(ctx, ctx.buffered(1), kv_heads)
        self.v = rows_of(ctx, ctx.buffered(2), kv_heads)
        self.group = heads // kv_heads
        self.batch, _, self.length, self.depth = self.k.shape
        self.width = self.v.shape[3]
        self.dtype = "float64" if self.q.tensor.dtype == "float64" else "float32"
        self.gated = "gated" in ctx.attr("update_rule")
        self.delta = "delta" in ctx.attr("update_rule")

    def emit(self) -> list[TensorExpr]:
        ctx = self.ctx
        results = [ctx.result(i) for i in range(len(ctx.node.outputs))]
        out = rows_of(ctx, results[0], self.q.shape[1])
        heads = self.k.shape[1]
        states = scratch(self.b, (self.batch, heads), (self.depth, self.width), self.dtype)
        lines = scratch(self.b, (self.batch, heads), (self.width,), self.dtype)

        def head(at: At) -> None:
            state, line = states(at), lines(at)
            self._start(at, state)
            with self.b.loop(self.length) as t:
                self._step(at, t, state, line)
                for member in range(self.group):
                    h = at[1] * self.group + member
                    self._read(at[0], h, t, state, line)
                    with self.b.loop(self.width) as e:
                        out.store((at[0], h, t, e), line[e] * self._scale())
            if len(results) > 1:
                with self.b.grid(self.depth, self.width) as (d, e):
                    results[1].store((*at, d, e), state[d, e])

        self.b.nest((self.batch, heads), head, cost=100_000, sequential_last=True)
        return list(results)

    def _scale(self) -> Expr:
        given = self.ctx.attr("scale")
        depth = as_int(self.depth)
        if given or depth is not None:
            return tirx.const(given or 1 / pymath.sqrt(max(depth or 1, 1)), self.dtype)
        return tirx.const(1, self.dtype) / tirx.sqrt(cast(self.depth, self.dtype))

    def _start(self, at: At, state: BufferTensor) -> None:
        zero = tirx.const(0, self.dtype)
        with self.b.grid(self.depth, self.width) as (d, e):
            past = self.ctx.input(3).at(*at, d, e) if self.ctx.has(3) else zero
            state.store((d, e), cast(past, self.dtype))

    def _step(self, at: At, t: Expr, state: BufferTensor, line: BufferTensor) -> None:
        """Update the state with position ``t``; ``line`` holds the value that is written."""
        b, h = at
        if self.gated:
            with self.b.loop(self.depth) as d:
                decay = self.b.let(math.exp(self.b, self._decay(b, h, t, d)))
                with self.b.loop(self.width) as e:
                    state.store((d, e), state[d, e] * decay)
        with self.b.loop(self.width) as e:
            line.store((e,), tirx.const(0, self.dtype))
        if self.delta:
            self._accumulate(state, line, lambda d: self.k.load(b, h, t, d))
        rate = self.b.let(self._beta(b, h, t))
        with self.b.loop(self.width) as e:
            line.store((e,), rate * (cast(self.v.load(b, h, t, e), self.dtype) - line[e]))
        with self.b.loop(self.depth) as d:
            key = self.b.let(cast(self.k.load(b, h, t, d), self.dtype))
            with self.b.loop(self.width) as e:
                state.store((d, e), state[d, e] + key * line[e])

    def _read(self, b: Expr, h: Expr, t: Expr, state: BufferTensor, line: BufferTensor) -> None:
        with self.b.loop(self.width) as e:
            line.store((e,), tirx.const(0, self.dtype))
        self._accumulate(state, line, lambda d: self.q.load(b, h, t, d))

    def _accumulate(
        self, state: BufferTensor, line: BufferTensor, factor: Callable[[Expr], Expr]
    ) -> None:
        """``line += S^T factor``."""
        with self.b.loop(self.depth) as d:
            value = self.b.let(cast(factor(d), self.dtype))
            with self.b.loop(self.width) as e:
                line.store((e,), line[e] + value * state[d, e])

    def _decay(self, b: Expr, h: Expr, t: Expr, d: Expr) -> Expr:
        """The decay: one number for each head, or for each element of the key."""
        decay = self.ctx.input(4)
        per_head = tirx.floordiv(index(decay.shape[2]), index(self.ctx.attr("kv_num_heads")))
        return cast(decay[b, t, h * per_head + tirx.min(d, per_head - 1)], self.dtype)

    def _beta(self, b: Expr, h: Expr, t: Expr) -> Expr:
        if not self.delta:
            return tirx.const(1, self.dtype)
        beta = self.ctx.input(5)
        return cast(beta[b, t, tirx.min(h, index(beta.shape[2]) - 1)], self.dtype)


# ---- CausalConvWithState -------------------------------------------------------------------------


@lowering("CausalConvWithState")
def _lower_causal_conv(ctx: LowerContext) -> list[TensorExpr]:
    """A sum over the taps of the kernel, unrolled where their number is known."""
    x, weight = ctx.buffered(0), ctx.input(1)
    known = as_int(weight.shape[2])
    taps = index(weight.shape[2])
    history = taps - 1

    def load(at: At) -> Expr:
        b, c, i = at
        start = ctx.input(2)[c] if ctx.has(2) else tirx.const(0, x.compute_dtype)

        def term(j: Any) -> Expr:
            return _padded(ctx, x, history, b, c, i + j) * weight[c, 0, j]

        if known is None:
            total = ctx.b.scalar(x.compute_dtype, start)
            with ctx.b.loop(taps) as j:
                total.set(total.get() + term(j))
            return _activated(ctx, total.get())
        return _activated(ctx, sum((term(j) for j in range(known)), start=start))

    cost = 4 * (known or 4)
    out = ctx.lazy(load, cost=cost)
    if len(ctx.node.outputs) == 1:
        return [out]
    length = index(x.shape[2])
    return [out, ctx.lazy(
        lambda at: _padded(ctx, x, history, at[0], at[1], at[2] + length), 1, cost=4
    )]  # fmt: skip


def _activated(ctx: LowerContext, total: Expr) -> Expr:
    if ctx.attr("activation") not in ("silu", "swish"):
        return total
    total = ctx.b.let(total)
    return total * math.sigmoid(ctx.b, total)


def _padded(ctx: LowerContext, x: TensorExpr, history: Expr, b: Expr, c: Expr, i: Expr) -> Expr:
    """Element ``i`` of a row, after ``history`` elements of the state (zeros without one)."""
    fresh = x[b, c, tirx.max(i - history, index(0))]
    old = tirx.const(0, dtype_of(fresh))
    if as_int(history) is None or as_int(x.shape[2]) is None:
        # Either tensor may be empty, so a branch is needed: a Select would read both.
        past = ctx.input(3)[b, c, i] if ctx.has(3) else old
        return tirx.if_then_else(i < history, past, x[b, c, i - history])
    if ctx.has(3) and as_int(history):
        old = ctx.input(3)[b, c, tirx.min(i, history - 1)]
    return tirx.Select(i < history, old, fresh)
