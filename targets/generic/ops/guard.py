"""Lowering of ``kiln.Within``: one pass over the values, without a branch."""

from __future__ import annotations

from tvm import tirx

from ...tir.builder import Expr, TensorExpr, index, product
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
    limits = {name: ctx.attr(name) for name in ("low", "high")}
    bounds = {name: b.let(index(b.dim(d))) for name, d in limits.items() if d is not None}

    def wrong(at: At) -> Expr:
        value = b.let(flat[(at[0] * index(stride) + offset,)])
        wide = cast(value, "int64")
        found: list[Expr] = []
        if "low" in bounds:
            found.append(wide < bounds["low"])
        if "high" in bounds:
            found.append(wide > bounds["high"])
        if ctx.attr("nonzero"):
            found.append(value.equal(zero))
        return tirx.Select(tirx.any(*found), one, zero)

    def program(g: Group) -> None:
        worst = g.fold(wrong, MAX, dtype)
        # Of no elements the worst is the least number there is.
        g.once(lambda at: out.store(at, tirx.LE(worst(), zero)))

    for_groups(b, (count,), [0], program, dtype, cost=2)
    return out
