"""Lowerings of the dialect ops that stand for encoders and support vector machines."""

from __future__ import annotations

import numpy as np
from tvm import tirx

from ...tir.builder import Builder, Expr, Scalar, TensorExpr
from ...tir.extents import as_int, index
from ..constants import literal
from ..registry import LowerContext, lowering

# ---- kiln.Lookup ---------------------------------------------------------------------------------


@lowering("kiln.Lookup")
def _lookup(ctx: LowerContext) -> TensorExpr:
    x, default = ctx.input(0), ctx.input(3)
    keys, values = ctx.known(1), ctx.known(2)
    if keys is not None and values is not None:
        return _compared(ctx, keys, values)
    table, results = ctx.buffered(1), ctx.buffered(2)
    count = as_int(table.shape[0])
    if count is None:
        raise ctx.error("the number of keys must be known")

    def load(at: tuple[Expr, ...]) -> Expr:
        value = ctx.b.let(x[at])
        # int32, since TVM takes exponential time for a chain of int64 index variables.
        place: Expr = tirx.const(0, "int32")
        left = count
        while left > 1:
            half = left // 2
            further = table[place + half] <= value
            place = ctx.b.let(tirx.Select(further, place + half, place))
            left -= half
        found = tirx.EQ(table[place], value)
        return tirx.Select(found, results[place], default.at())

    return ctx.lazy(load, cost=x.cost + 4 * count.bit_length() + 4)


def _compared(ctx: LowerContext, keys: np.ndarray, values: np.ndarray) -> TensorExpr:
    """Few keys: compare with each."""
    x, default = ctx.input(0), ctx.input(3)

    def load(at: tuple[Expr, ...]) -> Expr:
        value = ctx.b.let(x[at])
        result = default.at()
        for key, known in zip(keys, values, strict=True):
            same = tirx.EQ(value, literal(key, x.dtype))
            result = tirx.Select(same, literal(known, ctx.out_dtype()), result)
        return result

    return ctx.lazy(load, cost=x.cost + 2 * len(keys))


# ---- kiln.CoupledProbabilities -------------------------------------------------------------------


@lowering("kiln.CoupledProbabilities")
def _coupled(ctx: LowerContext) -> TensorExpr:
    pairs, out = ctx.buffered(0), ctx.result()
    classes = int(ctx.attr("classes"))

    def body(at: tuple[Expr, ...]) -> None:
        found = _Coupling(ctx.b, pairs, at[0], classes).solve()
        with ctx.b.loop(classes) as t:
            out.store((at[0], t), found[t])

    ctx.b.nest(pairs.shape[:1], body, 50 * classes * classes, sequential_last=True)
    return out


class _Coupling:
    """The coupling of one example: the probabilities p that minimise ``p'Qp``, with Q from the
    pairs.

    Each iteration changes every ``p_t`` by ``(p'Qp - (Qp)_t) / Q_tt`` and normalises p (Wu, Lin and
    Weng, "Probability estimates for multi-class classification by pairwise coupling", 2004).
    """

    def __init__(self, b: Builder, pairs: TensorExpr, row: Expr, classes: int) -> None:
        self.b = b
        self.classes = classes
        self.dtype = pairs.compute_dtype
        self.q = b.local((classes, classes), pairs.dtype, "q")
        self.p = b.local((classes,), pairs.dtype, "p")
        self.qp = b.local((classes,), pairs.dtype, "qp")
        self.total = b.scalar(self.dtype)
        self._fill(pairs, row)

    def number(self, value: float) -> Expr:
        return tirx.const(value, self.dtype)

    def _fill(self, pairs: TensorExpr, row: Expr) -> None:
        b, q, n = self.b, self.q, index(self.classes)
        with b.loop(n) as i:
            self.p.store((i,), self.number(1 / self.classes))
            with b.loop(n) as j:
                q.store((i, j), self.number(0))
        with b.loop(n) as i, b.loop(n - 1 - i) as after:
            j = b.let(i + 1 + after)
            place = tirx.floordiv(i * (2 * n - i - 1), index(2)) + after
            win = b.let(pairs[row, place])
            loss = b.let(self.number(1) - win)
            for at in ((i, j), (j, i)):
                q.store(at, -(win * loss))
            q.store((j, j), q[j, j] + win * win)
            q.store((i, i), q[i, i] + loss * loss)

    def solve(self) -> TensorExpr:
        """The probabilities [classes]."""
        b = self.b
        limit, tolerance = max(100, self.classes), self.number(0.005 / self.classes)
        sweeps = b.scalar("int64", 0)
        moving = b.scalar("bool", tirx.const(True, "bool"))
        with b.while_(tirx.all(moving.get(), sweeps.get() < limit)):
            self._products()
            moving.set(self._worst().get() >= tolerance)
            with b.when(moving.get()), b.loop(self.classes) as t:
                self._move(t)
            sweeps.set(sweeps.get() + 1)
        return self.p

    def _products(self) -> None:
        b = self.b
        self.total.set(self.number(0))
        with b.loop(self.classes) as t:
            product = b.scalar(self.dtype, self.number(0))
            with b.loop(self.classes) as j:
                product.set(product.get() + self.q[t, j] * self.p[j])
            self.qp.store((t,), product.get())
            self.total.set(self.total.get() + self.p[t] * product.get())

    def _worst(self) -> Scalar:
        b = self.b
        worst = b.scalar(self.dtype, self.number(0))
        with b.loop(self.classes) as t:
            worst.set(tirx.max(worst.get(), tirx.abs(self.qp[t] - self.total.get())))
        return worst

    def _move(self, t: Expr) -> None:
        b, q, qp, p = self.b, self.q, self.qp, self.p
        step = b.let((self.total.get() - qp[t]) / q[t, t])
        scale = b.let(self.number(1) + step)
        p.store((t,), p[t] + step)
        gain = step * (step * q[t, t] + self.number(2) * qp[t])
        self.total.set((self.total.get() + gain) / (scale * scale))
        with b.loop(self.classes) as j:
            qp.store((j,), (qp[j] + step * q[t, j]) / scale)
            p.store((j,), p[j] / scale)
