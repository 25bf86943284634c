"""Ops that make a tensor out of a few scalars: ranges, identities, windows, mel filters."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..dims import Dim, ceil_div, dim_max
from ..infer import KNOWN_LIMIT
from ..onnx_types import element_type
from ..registry import InferContext, op
from ..traits import Trait
from ..types import TensorType, Type
from .shape_values import Arrays, dim_array, dims_of, int_of

# ---- Range ---------------------------------------------------------------------------------------


def _range_ints(arrays: Arrays) -> tuple[Dim, Dim, int] | None:
    """Start, limit and delta of an integer range, as far as a length follows from them."""
    start, limit = dims_of(arrays[0]), dims_of(arrays[1])
    given = len(arrays) > 2
    delta = int_of(arrays[2]) if given else 1
    if not start or not limit or delta is None:
        return None
    return start[0], limit[0], delta


def _range_length(ctx: InferContext) -> Dim | None:
    arrays = [ctx.known(i) for i in range(len(ctx.inputs))]
    found = _range_ints(arrays)
    if found is not None:
        start, limit, delta = found
        if delta == 0:
            raise ctx.error("delta is 0")
        span = limit - start if delta > 0 else start - limit
        return dim_max(0, ceil_div(span, abs(delta)))
    if any(a is None or a.dtype == object for a in arrays):
        return None
    numbers = [float(a.reshape(-1)[0]) for a in arrays if a is not None]
    first, last, step = (*numbers, 1.0)[:3]
    if step == 0 or not math.isfinite((last - first) / step):
        raise ctx.error(f"the range {first}..{last} by {step} has no length")
    return max(0, math.ceil((last - first) / step))


def _range_value(ctx: InferContext, arrays: Arrays) -> Arrays | None:
    found, length = _range_ints(arrays), _range_length(ctx)
    if found is None or not isinstance(length, int) or length > KNOWN_LIMIT:
        return None
    return [dim_array([found[0] + i * found[2] for i in range(length)])]


def _arange(_node: Any, inputs: list[Any]) -> list[Any]:
    numbers = [a.reshape(-1)[0] for a in inputs if a is not None]
    return [np.arange(*numbers).astype(inputs[0].dtype)]


@op("Range", traits=(Trait.SOURCE,), propagate=_range_value)
@op("Range", domain="com.microsoft", propagate=_range_value, evaluate=_arange, arity=(2, 3),
    doc="Numbers from ``start`` by ``delta`` (default 1) up to ``limit``, exclusive.")  # fmt: skip
def _range(ctx: InferContext) -> list[Type]:
    if ctx.has(2) and ctx.tensor(2).dtype.is_integer:
        ctx.require_nonzero(2, "a delta other than 0")
    length = _range_length(ctx)
    return [ctx.tensor(0).with_shape((ctx.fresh_dim() if length is None else length,))]


# ---- EyeLike -------------------------------------------------------------------------------------


@op("EyeLike", traits=(Trait.SHAPE_ONLY, Trait.SOURCE))
def _eye_like(ctx: InferContext) -> list[Type]:
    x = ctx.tensor(0)
    if x.rank not in (1, 2):
        raise ctx.error(f"the input must have rank 1 or 2, not {x.rank}")
    code = ctx.attr("dtype")
    shape = x.dims if x.rank == 2 else x.dims * 2
    return [TensorType(x.dtype if code is None else element_type(code), shape)]


# ---- windows, mel filters ------------------------------------------------------------------------


def _count(ctx: InferContext, i: int) -> Dim | None:
    entries = dims_of(ctx.known(i))
    return entries[0] if entries else None


def _fresh_unless(ctx: InferContext, known: Dim | None) -> Dim:
    return ctx.fresh_dim() if known is None else known


@op("HannWindow", "HammingWindow", "BlackmanWindow")
def _window(ctx: InferContext) -> list[Type]:
    size = _fresh_unless(ctx, _count(ctx, 0))
    return [TensorType(element_type(ctx.attr("output_datatype")), (size,))]


@op("MelWeightMatrix")
def _mel_weight_matrix(ctx: InferContext) -> list[Type]:
    length = _count(ctx, 1)
    rows = _fresh_unless(ctx, None if length is None else length // 2 + 1)
    columns = _fresh_unless(ctx, _count(ctx, 0))
    return [TensorType(element_type(ctx.attr("output_datatype")), (rows, columns))]
