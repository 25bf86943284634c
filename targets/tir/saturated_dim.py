"""Dims and byte sizes at run time, without overflow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm import tirx

from ...ir.dims import Dim
from .builder import Builder
from .dim_expr import dim_expr
from .numeric import cast

LIMIT = 1 << 56
"""Larger dims and sizes count as this. No memory is so large, and sums of them do not overflow."""


def saturated_dim(b: Builder, dim: Dim, symbol: Callable[[str], Any]) -> Any:
    """:func:`dim_expr`, but products are at most :data:`LIMIT` instead of wrapping around."""

    def times(x: Any, y: Any) -> Any:
        x, y = b.let(x), b.let(y)
        wide = b.let(cast(x, "float64") * cast(y, "float64"))
        most, limit = tirx.const(float(LIMIT), "float64"), tirx.IntImm("int64", LIMIT)
        low = tirx.Select(wide < -most, tirx.IntImm("int64", -LIMIT), x * y)
        return b.let(tirx.Select(wide > most, limit, low))

    return dim_expr(dim, symbol, times)
