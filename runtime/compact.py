"""Puts the zeros back into weights that an artifact stores without them."""

from __future__ import annotations

import mmap
from collections.abc import Sequence

import numpy as np

from .dtypes import STORAGE
from .errors import ArtifactError
from .manifest import WeightSpec, compact_bytes


def expanded(stored: np.ndarray, weights: Sequence[WeightSpec], size: int) -> np.ndarray:
    """All weights as code wants them: ``size`` bytes, each at its offset.

    ``stored`` are the bytes of ``weights.bin`` (see :mod:`graphkiln.contract`). Raises
    ArtifactError where they do not have the number of elements that the manifest says, and where
    there is no such memory.
    """
    try:
        memory = np.frombuffer(mmap.mmap(-1, size), np.uint8)
    except OSError:
        raise ArtifactError(f"its weights need {size} bytes of memory") from None
    for spec in weights:
        target = memory[spec.offset : spec.offset + spec.nbytes]
        if spec.nonzeros is None:
            target[:] = stored[spec.stored : spec.stored + spec.nbytes]
        else:
            _expand(stored, spec, target)
    return memory


def _expand(stored: np.ndarray, spec: WeightSpec, target: np.ndarray) -> None:
    size = STORAGE[spec.dtype].itemsize
    assert spec.nonzeros is not None
    elements = spec.nbytes // size
    bits, values = compact_bytes(elements, spec.nonzeros, size)
    start = spec.stored
    marks = np.unpackbits(stored[start : start + bits], count=elements, bitorder="little")
    kept = marks.view(bool)
    if np.count_nonzero(kept) != spec.nonzeros:
        raise ArtifactError(f"weights.bin: {spec.name!r} has another number of elements")
    data = stored[start + bits : start + bits + values]
    target.view(f"u{size}")[kept] = data.view(f"u{size}")


__all__ = ["expanded"]
