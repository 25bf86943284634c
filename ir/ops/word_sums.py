"""``kiln.JoinSums``: what the sums of high and of low bytes stand for together."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import Node
from ..registry import InferContext, op
from ..traits import Trait
from ..types import Type

BYTE = 256
"""What a step of a high byte stands for, in steps of the low one."""


def _evaluate(_node: Node, inputs: list[Any]) -> list[Any]:
    high, low = (x.astype(np.int64) for x in inputs)
    return [(BYTE * high + low).astype(np.float32)]


@op(
    "JoinSums", domain="kiln", arity=(2, 2), evaluate=_evaluate,
    traits=(Trait.ELEMENTWISE, Trait.FINITE, Trait.CHEAP, Trait.ROUNDS_ONCE),
    doc="256 * high + low of two int32 tensors of one shape, exact and then rounded to float32: a "
    "sum of products of 16-bit numbers from those of their bytes.",
)  # fmt: skip
def _infer(c: InferContext) -> list[Type]:
    high, low = c.tensor(0), c.tensor(1)
    if {high.dtype.name, low.dtype.name} != {"int32"}:
        raise c.error(f"joins sums in int32, not {high.dtype} and {low.dtype}")
    c.require_same_shape(low.dims, high.dims, "sums of both bytes")
    return [high.with_dtype("float32")]


__all__ = ["BYTE"]
