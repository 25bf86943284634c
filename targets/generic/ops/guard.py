"""Lowering of ``kiln.Within``: one pass over the values, without a branch."""

from __future__ import annotations

from tvm import tirx

from ...tir.arithmetic import is_float
from ...tir.builder import Expr, TensorExpr
from ...tir.extents import index, product
from ...tir.numeric import cast
from ...tir.reduce import MAX, At, Group, for_groups
from ..registry import LowerContext, lowering


@lowering("kiln.Within")
def _lower_within(ctx: LowerContext) -> TensorExpr:
    b, out = ctx.b, ctx.result()
    x = ctx.buffered(0)
    stride, offset = ctx.attr("stride"), index(ctx.attr("offset"))
    total = product(x.shape)
    flat = b.view(x, (total,))
    count = tirx.floordiv(index(total), index(stride)) if stride > 1 else total
    dtype = flat.compute_dtype
    one, zero = tirx.const(1, dtype), tirx.const(0, dtype)
    wide = dtype if is_float(one) else "int64"
    limits = {name: ctx.attr(name) for name in ("low", "high", "below")}
    bounds = {
        name: b.let(cast(index(b.dim(d)), wide)) for name, d in limits.items() if d is not None
    }

    def wrong(at: At) -> Expr:
        value = b.let(flat[(at[0] * index(stride) + offset,)])
        number = cast(value, wide)
        fits: list[Expr] = []  # conditions, as NaN fails each: TVM turns !(a >= b) into a < b
        if "low" in bounds:
            fits.append(number >= bounds["low"])
        if "high" in bounds:
            fits.append(number <= bounds["high"])
        if "below" in bounds:
            fits.append(number < bounds["below"])
        if ctx.attr("nonzero"):
            fits.append(tirx.NE(value, zero))
        right = tirx.all(*fits)
        if ctx.attr("or_one"):
            right = tirx.any(right, value.equal(one))
        found = tirx.Select(right, zero, one)
        return found if ctx.attr("apart") is None else tirx.max(found, repeated(at, number))

    def repeated(at: At, number: Expr) -> Expr:
        """1 if an element before this one is equal to it, modulo ``apart``, else 0."""
        found = b.scalar(dtype, zero)
        with b.loop(at[0]) as i:
            other = cast(flat[(i * index(stride) + offset,)], wide)
            same = tirx.floormod(number - other, tirx.const(ctx.attr("apart"), wide)).equal(
                tirx.const(0, wide)
            )
            found.set(tirx.max(found.get(), tirx.Select(same, one, zero)))
        return found.get()

    def program(g: Group) -> None:
        worst = g.fold(wrong, MAX, dtype)
        # The maximum over no elements is the least number, which passes.
        g.once(lambda at: out.store(at, tirx.LE(worst(), zero)))

    for_groups(b, (count,), [0], program, dtype, cost=2)
    return out
