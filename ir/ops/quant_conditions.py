"""Conditions on the shapes of scales and zero points.

Without them, a kernel for a parameter of unknown length would read past one with a single entry.
"""

from __future__ import annotations

from ..conditions import Relation
from ..dims import Dim, ceil_div
from ..registry import InferContext
from ..shapes import normalize_axis
from ..types import TensorType


def require_single(c: InferContext, *inputs: int) -> None:
    """Record that each of ``inputs``, if it is given, is one number."""
    for i in inputs:
        if c.has(i):
            for d in c.tensor(i).dims:
                c.require_equal(d, 1, f"one number in input {i}")


def require_entries(c: InferContext, i: int, size: Dim, what: str) -> None:
    """Record that input ``i``, if it is given, is one number, or one for each of ``size``."""
    if not c.has(i):
        return
    dims = c.tensor(i).dims
    if len(dims) > 1:
        raise c.error(f"input {i} has {len(dims)} axes, it may have one")
    why = f"one number, or one for each {what}, in input {i}"
    relation = Relation.EQUAL if size == 1 else Relation.BROADCAST_TO
    for d in dims:
        c.require(relation, d, size, why)


def require_lines(c: InferContext, i: int, x: TensorType, axis: int, what: str) -> None:
    """Record that input ``i`` is one number, or one for each row (``axis`` -2) or column (-1) of
    ``x``.

    It is a vector, or has the axes of ``x`` with one entry along the other of the last two.
    """
    if not c.has(i):
        return
    size = x.dims[axis] if x.rank >= -axis and x.rank > 1 else 1
    if c.tensor(i).rank < 2:
        require_entries(c, i, size, what)
        return
    lines = [*x.dims[:-2], 1, 1]
    lines[axis] = size
    c.broadcast_to(c.tensor(i).dims, tuple(lines), f"input {i}")


def require_granularity(c: InferContext) -> None:
    """Record that inputs 1 and 2 of (De)QuantizeLinear fit input 0: by tensor, axis or block."""
    x, scale = c.tensor(0), c.tensor(1)
    axis = 1 if c.attr("axis") is None else int(c.attr("axis"))
    block = int(c.attr("block_size") or 0)
    if block and scale.rank != x.rank:
        raise c.error(f"a scale {scale} cannot quantize blocks of {x}")
    if block:
        dims = list(x.dims)
        axis = normalize_axis(axis, x.rank)
        dims[axis] = ceil_div(dims[axis], block)
        for i in (1, 2):
            if c.has(i):
                c.require_same_shape(c.tensor(i).dims, tuple(dims), f"input {i} for each block")
        return
    if scale.rank > 1 and scale.numel != 1:
        raise c.error(f"a scale {scale} needs a block_size")
    if c.has(2):
        c.require_equal(c.tensor(2).numel, scale.numel, "a zero point for each scale")
    size = x.dims[axis] if -x.rank <= axis < x.rank else 1
    for i in (1, 2):
        if c.has(i) and c.tensor(i).rank < 2:
            require_entries(c, i, size, f"index of axis {axis}")
