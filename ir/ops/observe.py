"""``kiln.Observe``: what a calibration sees of a tensor."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import Node
from ..magnitudes import BINS, bins_of
from ..registry import InferContext, op
from ..traits import Trait
from ..types import Type, tensor


def _evaluate(_node: Node, inputs: list[Any]) -> list[Any]:
    x, counted = inputs[0].reshape(-1), bool(inputs[1])
    bins = bins_of(x.astype(np.float32)) if counted else np.empty(0, np.int64)
    counts = np.bincount(bins, minlength=BINS).astype(np.int32)
    return [counts, np.min(x, initial=np.inf), np.max(x, initial=-np.inf)]


@op(
    "Observe", domain="kiln", arity=(2, 2), results=(3, 3), evaluate=_evaluate,
    traits=(Trait.REDUCTION, Trait.SINGLE_PASS, Trait.SYMMETRIC),
    doc="How many elements of a float tensor fall into each bin of equal relative width (see "
    "``ir/magnitudes.py``), int32, one number for each bin, all 0 where the second input (a bool "
    "scalar) is false; then the least and the greatest element as scalars: NaN where there is one, "
    "infinity and minus infinity where there is no element",
)  # fmt: skip
def _infer(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    if not x.dtype.is_float:
        raise ctx.error(f"observes floats, not {x.dtype}")
    return [tensor("int32", BINS), tensor(x.dtype.name), tensor(x.dtype.name)]
