"""Comparison of a value's type with the inferred type: can both be types of the same value?"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .dims import Dim, DimError, evaluate, free_symbols, known_equal
from .types import OptionalType, SequenceType, TensorType, Type

# Symbols of data-dependent sizes, which inference made; each may be equal to any dim.
_FRESH = re.compile(r"(?:.*_)?u[0-9]+_[0-9]+")
_SAMPLES = (7, 31, 90)


def same_type(stated: Type, inferred: Type) -> bool:
    """Can the two be types of one value?

    One may know more than the other: a rank, an extent, a layout. Dims over the same symbols must
    be equal; dims over different symbols may be equal.
    """
    if isinstance(stated, TensorType) and isinstance(inferred, TensorType):
        return _same_tensor(stated, inferred)
    if isinstance(stated, SequenceType) and isinstance(inferred, SequenceType):
        return same_type(stated.elem, inferred.elem)
    if isinstance(stated, OptionalType) and isinstance(inferred, OptionalType):
        return same_type(stated.elem, inferred.elem)
    return False


def _same_tensor(a: TensorType, b: TensorType) -> bool:
    if a.dtype != b.dtype or (a.layout and b.layout and a.layout != b.layout):
        return False
    if a.shape is None or b.shape is None:
        return True
    return len(a.shape) == len(b.shape) and all(
        same_dim(x, y) for x, y in zip(a.shape, b.shape, strict=True)
    )


def same_dim(a: Dim, b: Dim) -> bool:
    """Can two dims be equal? False if they are known to differ."""
    if a == b:
        return True
    symbols = free_symbols(a) | free_symbols(b)
    if not symbols:
        return False
    if any(_FRESH.fullmatch(s) for s in symbols):
        return True
    if free_symbols(a) != free_symbols(b) or known_equal(a, b):
        return True
    return any(_equal_at(a, b, dict.fromkeys(symbols, n)) for n in _SAMPLES)


def _equal_at(a: Dim, b: Dim, bindings: Mapping[str, int]) -> bool:
    try:
        return evaluate(a, bindings) == evaluate(b, bindings)
    except DimError:
        return True
