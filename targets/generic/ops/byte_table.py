"""The lowering of functions of a byte that are tables."""

from __future__ import annotations

from tvm import tirx

from ...tir.builder import Expr, TensorExpr
from ...tir.byte_tables import LookUp
from ...tir.numeric import cast
from ..registry import LowerContext, lowering


@lowering("kiln.MapBytes")
def lower_map_bytes(c: LowerContext) -> TensorExpr:
    """``table[x]``, where the bits of x are the index."""
    x, table = c.input(0), c.buffered(1)

    def load(at: tuple[Expr, ...]) -> Expr:
        bits = tirx.bitwise_and(cast(x.load(at), "int32"), tirx.const(255, "int32"))
        return table[c.b.let(bits)]

    return LookUp(c.out_dtype(), c.out_shape(), load, 2 + x.cost, x, table)
