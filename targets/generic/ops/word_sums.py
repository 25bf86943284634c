"""The lowering of sums of products of 16-bit numbers."""

from __future__ import annotations

from tvm import tirx

from ....ir.ops.word_sums import BYTE
from ...tir.builder import Expr, TensorExpr
from ...tir.numeric import cast
from ..registry import LowerContext, lowering


@lowering("kiln.JoinSums")
def lower_join_sums(c: LowerContext) -> TensorExpr:
    """``256 * high + low`` in float64, which holds every such number."""
    high, low = c.input(0), c.input(1)

    def load(at: tuple[Expr, ...]) -> Expr:
        wide = cast(high.load(at), "float64") * tirx.const(BYTE, "float64")
        return cast(wide + cast(low.load(at), "float64"), "float32")

    return c.lazy(load, cost=5 + high.cost + low.cost)
