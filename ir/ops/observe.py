"""``kiln.CountMagnitudes``: what a calibration sees of a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import Node
from ..magnitudes import BINS, bins_of
from ..registry import InferContext, op
from ..traits import Trait
from ..types import Type, tensor


def _evaluate(_node: Node, inputs: list[Any]) -> list[Any]:
    x = inputs[0].astype(np.float32).reshape(-1)
    return [np.bincount(bins_of(x), minlength=BINS).astype(np.int32)]


@op(
    "CountMagnitudes", domain="kiln", arity=(1, 1), evaluate=_evaluate,
    traits=(Trait.REDUCTION, Trait.SINGLE_PASS),
    doc="How many elements of a float tensor fall into each bin of equal relative width (see "
    "``ir/magnitudes.py``): int32, one number for each bin.",
)  # fmt: skip
def _infer(ctx: InferContext) -> list[Type]:
    if not ctx.tensor(0).dtype.is_float:
        raise ctx.error(f"counts floats, not {ctx.tensor(0).dtype}")
    return [tensor("int32", BINS)]
