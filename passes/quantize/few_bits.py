"""Weights of few bits in blocks along the axis of the sums, as ``MatMulNBits`` has them.

    w ~ s * (q - z),    q from 0 to 2 ** bits - 1

with a scale ``s`` for each column and block of rows, and a zero point ``z``, the middle of the
codes where the blocks are symmetric.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

_PARTS = np.linspace(1.15, 0.6, 23)
"""Parts of a block's range that are tried besides the whole one: a narrower one cuts the largest
weights, and rounds all others more finely; a wider one may fit them better by chance."""


@dataclass(frozen=True)
class Format:
    """``bits`` of a code (2, 4, 8), weights of a ``block`` (a power of two from 16 on), and whether
    zero points are the ``middle`` of the codes.
    """

    bits: int = 4
    block: int = 32
    symmetric: bool = True

    def __post_init__(self) -> None:
        if self.bits not in (2, 4, 8):
            raise ValueError(f"bits must be 2, 4 or 8, not {self.bits}")
        if self.block < 16 or self.block & (self.block - 1):
            raise ValueError(f"block must be a power of two from 16 on, not {self.block}")

    @property
    def most(self) -> int:
        """The largest code."""
        return int((1 << self.bits) - 1)

    @property
    def middle(self) -> int:
        """The zero point of symmetric blocks."""
        return 1 << (self.bits - 1)


Steps: TypeAlias = "tuple[np.ndarray, np.ndarray]"
"""The scales (float32) and zero points (float32, whole numbers) of some columns, ``[N]`` each."""

FindSteps: TypeAlias = "Callable[[np.ndarray, Format], Steps]"
"""Picks the steps for a block of weights ``[rows, N]``."""


def codes_of(weights: np.ndarray, steps: Steps, form: Format) -> np.ndarray:
    """The nearest codes for weights ``[..., N]``, halves to even: float64 of the same shape."""
    scale, zero = steps
    return np.clip(np.round(weights / scale.astype(np.float64)) + zero, 0, form.most)


def values_of(codes: np.ndarray, steps: Steps) -> np.ndarray:
    """What codes ``[..., N]`` stand for, float64."""
    scale, zero = steps
    return (codes - zero) * scale.astype(np.float64)


def whole_range(weights: np.ndarray, form: Format, part: float = 1.0) -> Steps:
    """Steps for the range of a block, or a ``part`` of it.

    Symmetric blocks have one code more below the middle than above: the weight of the largest
    magnitude gets it, so the scale has the sign that this takes.
    """
    if form.symmetric:
        largest = np.argmax(np.abs(weights), axis=0)
        peak = np.take_along_axis(weights, largest[None], 0)[0] * part
        scale, zero = peak / -form.middle, np.full(peak.shape, float(form.middle))
    else:
        low, high = np.minimum(weights.min(0), 0) * part, np.maximum(weights.max(0), 0) * part
        scale = (high - low) / form.most
        zero = np.round(-low / np.where(scale == 0, 1, scale))
    scale = np.where(np.abs(scale) < np.finfo(np.float32).tiny, 1.0, scale)
    return scale.astype(np.float32), zero.astype(np.float32)


def least_error(weights: np.ndarray, form: Format) -> Steps:
    """The steps of the least mean square error among parts of the range."""
    best = whole_range(weights, form)
    least = _error(weights, best, form)
    for part in _PARTS:
        steps = whole_range(weights, form, float(part))
        error = _error(weights, steps, form)
        better = error < least
        least = np.where(better, error, least)
        best = (np.where(better, steps[0], best[0]), np.where(better, steps[1], best[1]))
    return best


def _error(weights: np.ndarray, steps: Steps, form: Format) -> np.ndarray:
    off = values_of(codes_of(weights, steps, form), steps) - weights
    return np.sum(off**2, axis=0)


@dataclass(frozen=True)
class FewBits:
    """Quantized weights ``[K, N]``: ``codes`` uint8 ``[K, N]``, ``scales`` and ``zeros`` float32
    ``[blocks, N]``.
    """

    form: Format
    codes: np.ndarray
    scales: np.ndarray
    zeros: np.ndarray

    def values(self) -> np.ndarray:
        """The weights that the codes stand for, float64 ``[K, N]``."""
        repeat = np.repeat(np.arange(len(self.scales)), self.form.block)[: len(self.codes)]
        return values_of(self.codes.astype(np.float64), (self.scales[repeat], self.zeros[repeat]))

    def operands(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """The operands of ``MatMulNBits``: packed codes uint8 ``[N, blocks, block * bits / 8]``,
        scales float32 ``[N, blocks]``, and zero points uint8 ``[N, bytes]``, None where all are the
        middle.
        """
        form, (inner, columns) = self.form, self.codes.shape
        blocks = len(self.scales)
        padded = np.full((blocks * form.block, columns), form.middle, np.uint8)
        padded[:inner] = self.codes
        data = pack_fields(padded.T, form.bits).reshape(columns, blocks, -1)
        zeros = None if form.symmetric else pack_fields(self.zeros.T.astype(np.uint8), form.bits)
        return data, np.ascontiguousarray(self.scales.T), zeros


def pack_fields(codes: np.ndarray, bits: int) -> np.ndarray:
    """Codes along the last axis in bytes, the first of a byte in its lowest bits; the last byte is
    filled up with zeros.
    """
    each = 8 // bits
    short = -codes.shape[-1] % each
    wide = np.pad(codes, [(0, 0)] * (codes.ndim - 1) + [(0, short)]).astype(np.uint8)
    fields = wide.reshape(*wide.shape[:-1], -1, each)
    packed = np.zeros(fields.shape[:-1], np.uint8)
    for i in range(each):
        packed |= fields[..., i] << np.uint8(i * bits)
    return packed


def rounded(weights: np.ndarray, form: Format, find: FindSteps = whole_range) -> FewBits:
    """Weights ``[K, N]`` rounded to the nearest codes, each by itself."""
    codes = np.empty(weights.shape, np.uint8)
    scales, zeros = [], []
    for first in range(0, len(weights), form.block):
        block = weights[first : first + form.block].astype(np.float64)
        steps = find(block, form)
        codes[first : first + form.block] = codes_of(block, steps, form)
        scales.append(steps[0])
        zeros.append(steps[1])
    return FewBits(form, codes, np.array(scales, np.float32), np.array(zeros, np.float32))


__all__ = [
    "FewBits", "FindSteps", "Format", "Steps", "codes_of", "least_error", "pack_fields", "rounded",
    "values_of", "whole_range",
]  # fmt: skip
