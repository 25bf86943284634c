"""Constants inside kernels: scalars become literals, small arrays chains of selects."""

from __future__ import annotations

from typing import Any

import numpy as np
from tvm import tirx

from ..tir.builder import Builder, TensorExpr
from ..tir.extents import flatten_index, index
from ..tir.numeric import compute_dtype

Expr = Any


def literal(value: Any, dtype: str) -> Expr:
    """A scalar of IR type ``dtype`` as a literal of its compute type."""
    to = compute_dtype(dtype)
    if to == "bool":
        return tirx.const(bool(value), "bool")
    if to.startswith("float"):
        number = float(value)
        if np.isnan(number):
            return tirx.reinterpret(to, _bits(np.nan, to))
        if np.isinf(number):
            return tirx.reinterpret(to, _bits(number, to))
        return tirx.const(number, to)
    number = int(value)
    if to == "uint64" and number >= 2**63:
        high = tirx.shift_left(tirx.const(number >> 32, "uint64"), tirx.const(32, "uint64"))
        return tirx.bitwise_or(high, tirx.const(number & 0xFFFFFFFF, "uint64"))
    return tirx.const(number, to)


def _bits(value: float, to: str) -> Expr:
    kind = {"float32": np.uint32, "float64": np.uint64, "float16": np.uint16}[to]
    raw = int(np.array(value, dtype=to).view(kind))
    return literal(raw, np.dtype(kind).name)


def table(b: Builder, array: np.ndarray, dtype: str) -> TensorExpr:
    """A small array as an expression of its indices: a chain of selects.

    An index that is itself the result of selects is stored in memory first. Otherwise TVM's
    analyzer would substitute its chain into each comparison of this one.
    """
    flat = [literal(v, dtype) for v in array.reshape(-1)]

    def load(at: tuple[Expr, ...]) -> Expr:
        where = flatten_index(at, array.shape)
        if isinstance(where, tirx.IntImm):
            return flat[int(where.value)]
        if not b.is_counted(where):
            where = b.element(where)
        result = flat[-1]
        for i in range(len(flat) - 2, -1, -1):
            result = tirx.Select(where.equal(index(i)), flat[i], result)
        return result

    return TensorExpr(dtype, tuple(array.shape), load, cost=len(flat))
