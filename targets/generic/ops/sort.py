"""Lowerings of ops along the order of an axis: TopK, CumSum, CumProd."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import DataType, tirx

from ...tir.builder import BufferTensor, Builder, Expr, TensorExpr
from ...tir.extents import as_int, index
from ...tir.numeric import round_to
from ..constants import literal
from ..registry import LowerContext, lowering, sizes
from .movement_params import At, fresh_sizes, replaced, scalar_param

MOST_LANES = 16
"""Neighbouring lines that a cumulative op computes together, if its axis is not the last."""

INSERTION_LIMIT = 16
"""Up to this k the best elements are kept in a sorted list, above it in a heap."""


# ---- TopK ----------------------------------------------------------------------------------------


@dataclass
class _Line:
    """The results along one line: ``k`` values and their indices, both in memory."""

    b: Builder
    values: BufferTensor
    places: BufferTensor
    at: Callable[[Expr], At]
    largest: bool

    def value(self, i: Expr) -> Expr:
        return self.values[self.at(i)]

    def place(self, i: Expr) -> Expr:
        return self.places[self.at(i)]

    def put(self, i: Expr, value: Expr, place: Expr) -> None:
        self.values.store(self.at(i), value)
        self.places.store(self.at(i), place)

    def better(self, a: Expr, c: Expr) -> Expr:
        """Is ``a`` strictly before ``c`` in the result? NaN counts as the largest number."""
        ahead = a > c if self.largest else a < c
        if not str(a.ty.dtype).startswith("float"):
            return ahead
        number, nan = (c, a) if self.largest else (a, c)
        return tirx.any(ahead, tirx.all(tirx.isnan(nan), tirx.Not(tirx.isnan(number))))

    def worse(self, i: Expr, j: Expr) -> Expr:
        """Does element ``i`` come after element ``j``? Of equals, the one with the later index
        does.
        """
        a, c = self.b.element(self.value(i)), self.b.element(self.value(j))
        later = self.place(i) > self.place(j)
        return tirx.any(self.better(c, a), tirx.all(tirx.Not(self.better(a, c)), later))

    def swap(self, i: Expr, j: Expr) -> None:
        value, place = self.b.element(self.value(i)), self.b.let(self.place(i))
        self.put(i, self.value(j), self.place(j))
        self.put(j, value, place)


@lowering("TopK")
def _top_k(ctx: LowerContext) -> list[TensorExpr]:
    b, x = ctx.b, ctx.input(0)
    axis = ctx.attr("axis") % x.rank
    values, places = ctx.result(0), ctx.result(1)
    k, n = index(values.shape[axis]), x.shape[axis]
    known = as_int(k)
    keep = _insert_sorted if known is not None and known <= INSERTION_LIMIT else _keep_heap

    def body(rest: At) -> None:
        def at(i: Expr) -> At:
            return (*rest[:axis], index(i), *rest[axis:])

        line = _Line(b, values, places, at, bool(ctx.attr("largest")))
        with b.when(k > index(0)):  # without results there is no first one to compare with
            keep(line, lambda j: round_to(x[at(j)], x.dtype), index(n), k)

    if known != 0:
        lines = (*x.shape[:axis], *x.shape[axis + 1 :])
        b.nest(lines, body, (as_int(n) or 1_000) * (4 + x.cost), sequential_last=True)
    return [values, places]


def _insert_sorted(line: _Line, load: Callable[[Expr], Expr], n: Expr, k: Expr) -> None:
    """Insert every element into the sorted list of the best so far."""
    b = line.b
    with b.loop(n) as j:
        value = b.element(load(j))
        full = j >= k
        with b.when(tirx.any(tirx.Not(full), line.better(value, line.value(k - 1)))):
            hole = b.scalar("int64", tirx.min(j, k - 1))
            moving = b.scalar("bool", tirx.const(True, "bool"))
            with b.while_(tirx.all(moving.get(), hole.get() > 0)):
                before = b.let(hole.get() - 1)
                moving.set(line.better(value, line.value(before)))
                with b.when(moving.get()):
                    line.put(hole.get(), line.value(before), line.place(before))
                    hole.set(before)
            line.put(hole.get(), value, j)


def _keep_heap(line: _Line, load: Callable[[Expr], Expr], n: Expr, k: Expr) -> None:
    """Keep a heap of the best so far, with the worst on top; it is sorted in place at the end."""
    b = line.b
    with b.loop(k) as j:
        line.put(j, load(j), j)
    with b.loop(tirx.floordiv(k, index(2))) as i:
        _sift_down(line, tirx.floordiv(k, index(2)) - 1 - i, k)
    with b.loop(n - k) as j:
        value = b.element(load(k + j))
        with b.when(line.better(value, line.value(index(0)))):
            line.put(index(0), value, k + j)
            _sift_down(line, index(0), k)
    with b.loop(tirx.max(k - 1, index(0))) as i:
        last = b.let(k - 1 - i)
        line.swap(index(0), last)
        _sift_down(line, index(0), last)


def _sift_down(line: _Line, start: Expr, size: Expr) -> None:
    """Move element ``start`` down until no child in the first ``size`` is worse."""
    b = line.b
    node = b.scalar("int64", start)
    with b.while_(2 * node.get() + 1 < size):
        child = b.scalar("int64", 2 * node.get() + 1)
        right = b.let(tirx.min(child.get() + 1, size - 1))
        with b.when(line.worse(right, child.get())):
            child.set(right)
        sinks = b.let(line.worse(child.get(), node.get()))
        with b.when(sinks):
            line.swap(node.get(), child.get())
        node.set(tirx.Select(sinks, child.get(), size))


@sizes("TopK")
def _top_k_sizes(ctx: LowerContext) -> list[Expr]:
    x = ctx.input(0)
    return fresh_sizes(
        ctx, replaced(x.shape, ctx.attr("axis") % x.rank, index(scalar_param(ctx, 1)))
    )


# ---- CumSum, CumProd -----------------------------------------------------------------------------


@lowering("CumSum", "CumProd")
def _cumulative(ctx: LowerContext) -> TensorExpr:
    b, x, out = ctx.b, ctx.input(0), ctx.result()
    known = ctx.known(1)
    if known is not None:
        axis = int(known.reshape(-1)[0]) % x.rank
        _known_axis(ctx, out, axis)
        return out

    def body(at: At) -> None:
        # The axis is only known now, so the body at the first element of a line computes the line.
        axis = b.let(index(scalar_param(ctx, 1)))
        for a in range(x.rank):
            named = axis.equal(index(a)) | axis.equal(index(a - x.rank))
            with b.when(tirx.all(named, at[a].equal(index(0)))):
                _accumulate(ctx, out, a, (*at[:a], *at[a + 1 :]))

    b.nest(x.shape, body, 8 * (1 + x.cost), sequential_last=True)
    return out


def _known_axis(ctx: LowerContext, out: BufferTensor, axis: int) -> None:
    x = ctx.input(0)
    lines = [*x.shape[:axis], *x.shape[axis + 1 :]]
    cost = (as_int(x.shape[axis]) or 1_000) * (1 + x.cost)
    lanes = min(MOST_LANES, ctx.b.loops.vector_bytes * 8 // DataType(x.compute_dtype).bits)
    width = as_int(lines[-1]) if axis != x.rank - 1 else None
    if width is None or lanes < 2 or width % lanes:
        ctx.b.nest(lines, lambda at: _accumulate(ctx, out, axis, at), cost, sequential_last=True)
        return
    # Neighbouring lines are computed together, one in each lane.
    lines[-1] = width // lanes

    def body(at: At) -> None:
        _accumulate(ctx, out, axis, (*at[:-1], at[-1] * lanes), lanes)

    ctx.b.nest(lines, body, cost * lanes, sequential_last=True)


def _accumulate(ctx: LowerContext, out: BufferTensor, axis: int, rest: At, lanes: int = 1) -> None:
    """Accumulate along one line, or along ``lanes`` neighbouring lines that start at ``rest``."""
    b, x = ctx.b, ctx.input(0)
    times = ctx.node.op == "CumProd"
    total = b.local((lanes,), x.compute_dtype, "total")
    with b.lanes(lanes) as lane:
        total.store((lane,), literal(1 if times else 0, x.dtype))
    with b.loop(x.shape[axis]) as step, b.lanes(lanes) as lane:
        i = index(x.shape[axis]) - 1 - step if ctx.attr("reverse") else step
        here = (*rest[:-1], rest[-1] + lane) if rest else ()
        at = (*here[:axis], i, *here[axis:])
        before = total[lane]
        after = before * x[at] if times else before + x[at]
        if ctx.attr("exclusive"):
            after = b.let(after)
            out.store(at, before)
            total.store((lane,), after)
        else:
            total.store((lane,), after)
            out.store(at, total[lane])
