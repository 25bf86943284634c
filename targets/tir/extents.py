"""Extents and indices: ints where they are known, int64 expressions where a run decides."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import tvm_ffi
from tvm import tirx

from .numeric import cast

Expr = Any


def index(value: Any) -> Expr:
    """An int64 expression of a Python int or an expression."""
    if isinstance(value, int):
        return _number(int(value))
    return cast(value, "int64")


@lru_cache(maxsize=1 << 16)
def _number(value: int) -> Expr:
    """Most indices are a few small numbers, which TVM takes long to make."""
    return tirx.IntImm("int64", value)


def as_int(value: Any) -> int | None:
    """The int of a constant expression (or of an int); None for others."""
    if isinstance(value, int):
        return value
    return int(value.value) if isinstance(value, tirx.IntImm) else None


def same_extent(a: Any, b: Any) -> bool:
    """Whether two extents are the same number or the same expression."""
    if isinstance(a, int) and isinstance(b, int):
        return a == b
    return bool(tvm_ffi.structural_equal(index(a), index(b)))


def static_product(extents: Sequence[Any]) -> int | None:
    """The product of constant extents, or None where one is symbolic."""
    total = 1
    for e in extents:
        value = as_int(e)
        if value is None:
            return None
        total *= value
    return total


def product(extents: Sequence[Any]) -> Any:
    """The product of extents, an int where all are constant."""
    known = static_product(extents)
    if known is not None:
        return known
    total: Any = index(1)
    for e in extents:
        total = total * index(e)
    return total


def unflatten(flat: Expr, extents: Sequence[Any]) -> tuple[Expr, ...]:
    """Row-major indices of a flat index."""
    out: list[Expr] = []
    for e in reversed(extents[1:]):
        out.append(tirx.floormod(flat, index(e)))
        flat = tirx.floordiv(flat, index(e))
    return (*([flat] if extents else []), *reversed(out))


def flatten_index(indices: Sequence[Any], extents: Sequence[Any]) -> Expr:
    """The row-major flat index of ``indices``.

    What is known of it is one number: kernels hold many indices, and TVM takes long to find that.
    """
    terms: list[Expr] = []
    offset, stride = 0, 1
    steps: Any = None  # the product of the open extents so far
    for i, extent in zip(reversed(indices), reversed(extents), strict=True):
        known = as_int(i)
        if known is None or (known and steps is not None):
            term = index(i) if steps is None else index(i) * steps
            terms.append(term if stride == 1 else term * index(stride))
        else:
            offset += (known or 0) * stride
        size = as_int(extent)
        if size is None:
            steps = index(extent) if steps is None else steps * index(extent)
        else:
            stride *= size
    if not terms:
        return index(offset)
    flat = sum(terms[-2::-1], start=terms[-1])
    return flat if offset == 0 else flat + index(offset)
