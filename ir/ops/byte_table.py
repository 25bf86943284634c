"""Functions of one byte as a table of their 256 results."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..axes.pointwise import first_elementwise
from ..graph import Node
from ..registry import InferContext, op
from ..traits import Trait
from ..types import BYTES, Type

SIZE = 256


def _evaluate(_node: Node, inputs: list[Any]) -> list[Any]:
    x, table = inputs
    return [table[x.view(np.uint8)]]


@op(
    "MapBytes", domain="kiln", arity=(2, 2), evaluate=_evaluate, axes=first_elementwise,
    traits=(Trait.TABULAR, Trait.FINITE, Trait.CHEAP),
    doc="table[x] of int8 or uint8 x [..] and a table of 256 8-bit integers. An int8 x counts "
    "from the table's end where it is negative.",
)  # fmt: skip
def _infer(c: InferContext) -> list[Type]:
    x, table = c.tensor(0), c.tensor(1)
    if x.dtype.name not in BYTES or table.dtype.name not in BYTES:
        raise c.error(f"maps 8-bit integers, not {x.dtype} by a table of {table.dtype}")
    c.require_equal(table.dims[0], SIZE, "a result for each byte")
    return [x.with_dtype(table.dtype)]
