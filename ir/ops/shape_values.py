"""Symbolic evaluation of small integer tensors: what the shape ops' ``propagate`` rules share.

An array of values has exactly the shape of its tensor; its entries are ints or dims.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce
from operator import mul
from typing import TypeAlias

import numpy as np

from ..dims import Dim
from ..infer import KNOWN_LIMIT
from ..registry import InferContext, Propagate
from ..types import Shape, TensorType

Array: TypeAlias = np.ndarray
Arrays: TypeAlias = "list[np.ndarray | None]"


def dims_of(array: Array | None) -> list[Dim] | None:
    """The entries of a known integer (or bool) array, flattened; None where it is not known."""
    if array is None or array.dtype.kind not in "biuO":
        return None
    return [v if array.dtype == object else int(v) for v in array.reshape(-1)]


def ints_of(array: Array | None) -> list[int] | None:
    """The entries as ints, flattened; None where the array or one entry is not known."""
    entries = dims_of(array)
    if entries is None or not all(isinstance(v, int | np.integer) for v in entries):
        return None
    return [int(v) for v in entries]


def int_of(array: Array | None) -> int | None:
    """The one entry of an array with one element, where it is known and an int."""
    entries = ints_of(array)
    return entries[0] if entries is not None and len(entries) == 1 else None


def dim_array(entries: Sequence[Dim], shape: tuple[int, ...] | None = None) -> Array:
    """An object array of dims (1-D where no shape is given)."""
    out = np.empty(len(entries), dtype=object)
    out[:] = list(entries)
    return out if shape is None else out.reshape(shape)


def numel(shape: Shape) -> Dim:
    """The product of the dims; 1 for a scalar."""
    return reduce(mul, shape, 1)


def inferred_shape(ctx: InferContext, i: int = 0) -> tuple[int, ...] | None:
    """The static shape that inference gave output ``i``; None where it is open or too large."""
    t = ctx.results[i]
    if not isinstance(t, TensorType) or not t.is_static:
        return None
    return t.static_shape if int(numel(t.dims)) <= KNOWN_LIMIT else None


def rearranged(rule: Callable[[InferContext, Array], Array | None]) -> Propagate:
    """A propagate rule for ops that only move the elements of their first input."""

    def propagate(ctx: InferContext, arrays: Arrays) -> Arrays | None:
        return None if arrays[0] is None else [rule(ctx, arrays[0])]

    return propagate


def _reshaped(ctx: InferContext, array: Array) -> Array | None:
    shape = inferred_shape(ctx)
    return None if shape is None else array.reshape(shape)


reshaped: Propagate = rearranged(_reshaped)
"""Same elements in the same order, in the shape that inference gave the output."""


def _broadcast(ctx: InferContext, array: Array) -> Array | None:
    shape = inferred_shape(ctx)
    return None if shape is None else np.broadcast_to(array, shape).copy()


broadcasted: Propagate = rearranged(_broadcast)
"""The elements repeated to the shape that inference gave the output."""
