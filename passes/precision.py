"""Precision of element types: bits of floats, and when two numbers are equal to the last bits."""

from __future__ import annotations

import math

import numpy as np
from ml_dtypes import finfo

from ..ir.types import DType

FLOATS = {"float16": (11, 5), "bfloat16": (8, 8), "float32": (24, 8), "float64": (53, 11)}
"""Bits of the significand (with the hidden one) and of the exponent."""

ULPS = 2
"""Units in the last place by which a constant may differ from the number that it stands for.

Exporters round the factors of a constant before they multiply them, and print a limited number of
decimals. Each of these costs a unit in the last place.
"""


def unit(number: float, kind: str) -> float:
    """The least distance of ``number`` from another number of float type ``kind``."""
    bits, exponent = FLOATS[kind]
    least = 2 - 2 ** (exponent - 1)
    return math.ldexp(1.0, max(math.frexp(number)[1] - 1, least) - bits + 1)


def rounded(number: float, kind: str) -> float:
    """``number`` rounded to float type ``kind``; ties to even, infinite beyond the greatest."""
    if number == 0 or not math.isfinite(number):
        return number
    step = unit(number, kind)
    nearest = round(number / step) * step
    fits = math.frexp(nearest)[1] <= 2 ** (FLOATS[kind][1] - 1)
    return nearest if fits else math.copysign(math.inf, number)


def is_number(number: float, wanted: float, kind: str) -> bool:
    """Is ``number``, a constant of type ``kind``, equal to ``wanted`` up to the last bits of that
    type?

    Numbers of few bits (1, 0.5, infinity, all that float16 holds) must be equal exactly, and zero
    with its sign. Others may differ by :data:`ULPS` from the rounded number: 0.7978845 stands for
    sqrt(2/pi).
    """
    nearest = rounded(wanted, kind) if kind in FLOATS else wanted
    if kind not in FLOATS or nearest == wanted == rounded(wanted, "float16"):
        return number == wanted and math.copysign(1, number) == math.copysign(1, wanted)
    return abs(number - nearest) <= ULPS * unit(nearest, kind)


def exactly_held(source: DType, target: DType) -> bool:
    """Can ``target`` hold every value of ``source``?"""
    if source == target or source.kind == "b" and target.kind in "iuf":
        return True
    if source.is_integer and target.is_integer:
        signed = source.kind == "i"
        if signed and target.kind == "u":
            return False
        return source.bits + (0 if signed or target.kind == "u" else 1) <= target.bits
    wide = FLOATS.get(target.name)
    if wide is None:
        return False
    if source.is_integer:
        return source.bits - (source.kind == "i") <= wide[0]
    narrow = FLOATS.get(source.name)
    return narrow is not None and narrow[0] <= wide[0] and narrow[1] <= wide[1]


DROWNING = 2.0**-60
"""A term whose factor is at least this makes terms with subnormal factors vanish in rounding."""


def narrowed(
    wide: np.ndarray, kind: np.dtype, drowned: np.ndarray | bool = False
) -> np.ndarray | None:
    """``wide`` (float64) in type ``kind``; None if an element loses more than its last bit.

    Elements do that overflow, are NaN, or are so small that they become subnormal; but the last may
    if they are ``drowned``, which means that they vanish in the sum they are used in.
    """
    with np.errstate(all="ignore"):
        narrow: np.ndarray = wide.astype(kind)
        back = narrow.astype(np.float64)
    kept = (np.abs(back) >= least_normal(kind)) | (back == wide) | drowned
    return narrow if np.all(np.isfinite(back) & kept) else None


def least_normal(kind: np.dtype | str) -> float:
    """The smallest positive normal number of a float type."""
    return float(finfo(kind).tiny)  # type: ignore[no-untyped-call]


def largest_number(kind: np.dtype | str) -> float:
    """The largest number of a float type."""
    return float(finfo(kind).max)  # type: ignore[no-untyped-call]


__all__ = [
    "DROWNING", "FLOATS", "ULPS", "exactly_held", "is_number", "largest_number", "least_normal",
    "narrowed", "rounded", "unit",
]  # fmt: skip
