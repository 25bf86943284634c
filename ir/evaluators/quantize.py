"""QuantizeLinear of numbers that no int32 holds, as ``onnx.reference`` converts them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph import Node
from ..onnx_types import element_type
from ..reference import reference_runner
from ..registry import attribute
from ..shapes import normalize_axis
from ..types import from_numpy_dtype, to_numpy_dtype

_FAR = 2.0**24
"""Quotients above are out of range for every type, whatever the zero point."""


def quantize_linear(node: Node, inputs: list[Any]) -> list[Any]:
    """QuantizeLinear-25: large quotients saturate (``onnx.reference`` wraps them around)."""
    run = reference_runner(node, [v is not None for v in inputs])
    (plain,) = run(inputs)
    target = from_numpy_dtype(plain.dtype)
    if not target.is_integer:
        return [plain]
    quotient = _quotient(node, inputs[0], inputs[1])
    far = np.abs(quotient) > _FAR
    low = -(1 << (target.bits - 1)) if target.kind == "i" else 0
    ends = np.where(quotient > 0, low + (1 << target.bits) - 1, low).astype(plain.dtype)
    return [np.where(far, ends, plain)]


def _quotient(node: Node, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """``x / scale`` in the type of the division, as float64."""
    if attribute(node, "precision"):
        kind = to_numpy_dtype(element_type(attribute(node, "precision")))
        x, scale = x.astype(kind), scale.astype(kind)
    return np.asarray(x / spread(node, scale, x.shape)).astype(np.float64)


def spread(node: Node, parameter: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A scale that broadcasts with ``shape``: of the tensor, along an axis, or of blocks."""
    if parameter.size == 1:
        return parameter.reshape(())
    axis = normalize_axis(attribute(node, "axis"), len(shape))
    block = attribute(node, "block_size")
    if block:
        return np.repeat(parameter, block, axis).take(range(shape[axis]), axis)
    return parameter.reshape([-1 if a == axis else 1 for a in range(len(shape))])


__all__ = ["quantize_linear"]
