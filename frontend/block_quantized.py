"""com.microsoft's GatherBlockQuantized, the embedding of language models with quantized tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..ir.graph import Value
from .emit import Emit
from .errors import ImportFault
from .node import OnnxNode


def gather_block_quantized(node: OnnxNode, emit: Emit) -> Sequence[Value]:
    """GatherBlockQuantized-1: rows of a table with a scale for each block of their elements.

    Inputs: the table, in 4-bit integers, small floats, or uint8 that hold 2, 4 or 8 bits of an
    element, low ones first, along the last axis; indices; scales, whose axis ``quantize_axis``
    counts blocks of ``block_size`` elements; zero points like the table. Rows, scales and zero
    points are gathered first, then dequantized.
    """
    table, indices, scales, zeros = (node.input(i) for i in range(4))
    if table is None or indices is None or scales is None:
        raise ImportFault("needs a table, indices and scales")
    rank = emit.rank(table)
    gathered = _axis(node, "gather_axis", 0, rank)
    blocked = _axis(node, "quantize_axis", 1, rank)
    if gathered == blocked:
        raise ImportFault("gather_axis and quantize_axis must differ")
    bits = node.attrs.get("bits", 4)
    packed = table.dtype == "uint8"
    if packed and bits not in (2, 4, 8):
        raise ImportFault(f"bits must be 2, 4 or 8, not {bits}")
    rows, scale = (_rows(x, table, indices, gathered, emit) for x in (table, scales))
    zero = None if zeros is None else _rows(zeros, table, indices, gathered, emit)
    if packed and isinstance(bits, int):
        rows = _unpacked(rows, bits, emit)
        zero = _zero_points(zero, scale, bits, emit)
    axis = blocked if blocked < gathered else blocked - 1 + emit.rank(indices)
    size = node.attrs.get("block_size", 128) or emit.dims(rows)[axis]
    return [emit("DequantizeLinear", rows, scale, zero, axis=axis, block_size=size)]


def _axis(node: OnnxNode, name: str, usual: int, rank: int) -> int:
    axis = node.attrs.get(name, usual)
    if not isinstance(axis, int) or not -rank <= axis < rank:
        raise ImportFault(f"{name}={axis} is out of range for a table of {rank} axes")
    return axis % rank


def _rows(x: Value, table: Value, indices: Value, axis: int, emit: Emit) -> Value:
    if emit.dims(x)[axis] != emit.dims(table)[axis]:
        raise ImportFault(f"{x.name!r} ({x.type}) must have an entry for each row of {table.type}")
    return emit("Gather", x, indices, axis=axis)


def _unpacked(x: Value, bits: int, emit: Emit) -> Value:
    """The elements of ``bits`` bits in bytes along the last axis, low ones first, a byte each."""
    if bits == 8:
        return x
    last = emit.rank(x)
    parts = []
    for shift in range(0, 8, bits):
        moved = emit("BitShift", x, emit.scalar(shift, x), direction="RIGHT") if shift else x
        part = emit("BitwiseAnd", moved, emit.scalar(2**bits - 1, x))
        parts.append(emit("Unsqueeze", part, emit.ints([last])))
    joined = emit("Concat", *parts, axis=last)
    return emit("Reshape", joined, emit.ints([*[0] * (last - 1), -1]))


def _zero_points(zero: Value | None, scale: Value, bits: int, emit: Emit) -> Value:
    """The zero points, one for each scale; half of the range if none are given."""
    if zero is None:
        half = emit.constant(np.array(2 ** (bits - 1), np.uint8))
        return emit("Expand", half, emit("Shape", scale))
    whole = _unpacked(zero, bits, emit)
    last = emit.rank(scale) - 1
    blocks = emit("Shape", scale, start=last, end=last + 1)
    return emit("Slice", whole, emit.ints([0]), blocks, emit.ints([last]))
