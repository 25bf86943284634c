"""Reference evaluation of com.microsoft's quantized and fused ops, in NumPy.

Sums of integer products are exact: float64 holds every one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ...errors import OperandError
from ..evaluators.activation import sigmoid
from ..evaluators.arithmetic import centred, dynamic_codes, requantize, saturated
from ..evaluators.conv import conv
from ..evaluators.matmul import gemm
from ..evaluators.pool import average_pool
from ..graph import Node
from ..registry import attribute
from ..shapes import normalize_axis
from ..types import to_numpy_dtype
from .fused_activation import activation_parameters

Array = np.ndarray


# ---- linear --------------------------------------------------------------------------------------


def along(parameter: Array | None, axis: int | None, rank: int) -> Array | None:
    """A scale or zero point that broadcasts: for the whole tensor, or along ``axis``."""
    if parameter is None or parameter.size == 1:
        return None if parameter is None else parameter.reshape(())
    shape = [1] * rank
    shape[normalize_axis(1 if axis is None else axis, rank)] = parameter.size
    return parameter.reshape(shape)


def quantize_linear(node: Node, inputs: list[Any]) -> list[Any]:
    """``saturate(round(x / scale) + zero)``."""
    x, scale, zero = [*inputs, None][:3]
    axis = attribute(node, "axis")
    quotient = x.astype(np.float32) / along(scale, axis, x.ndim).astype(np.float32)  # type: ignore[union-attr]
    return [_codes(quotient, along(zero, axis, x.ndim))]


def dequantize_linear(node: Node, inputs: list[Any]) -> list[Any]:
    """``(x - zero) * scale``."""
    x, scale, zero = [*inputs, None][:3]
    axis = attribute(node, "axis")
    wide = x.astype(np.float32)
    if zero is not None:
        wide = wide - along(zero, axis, x.ndim).astype(np.float32)  # type: ignore[union-attr]
    return [(wide * along(scale, axis, x.ndim)).astype(scale.dtype)]


def _codes(quotient: Array, zero: Array | None, default: str = "uint8") -> Array:
    """A quotient, rounded, plus its zero point, and saturated to the zero point's type."""
    target = to_numpy_dtype(default) if zero is None else zero.dtype
    return saturated(np.rint(quotient) + (0 if zero is None else zero.astype(np.float32)), target)


# ---- products ------------------------------------------------------------------------------------


def matmul_integer_to_float(_node: Node, inputs: list[Any]) -> list[Any]:
    """``(a - a_zero) @ (b - b_zero) * a_scale * b_scale + bias``."""
    a, b, a_scale, b_scale, a_zero, b_zero, bias = [*inputs, None, None, None][:7]
    total = centred(a, a_zero, axis=None) @ centred(b, b_zero, axis=b.ndim - 1)
    result = total.astype(np.float32) * (a_scale * b_scale)
    return [(result if bias is None else result + bias).astype(a_scale.dtype)]


def dynamic_quantize_matmul(_node: Node, inputs: list[Any]) -> list[Any]:
    """A float times an integer matrix; the float is quantized to uint8 over its own range."""
    a, b, b_scale, b_zero, bias = [*inputs, None, None][:5]
    codes, a_scale = dynamic_codes(a)
    total = codes @ centred(b, b_zero, axis=b.ndim - 1)
    result = total.astype(np.float32) * (a_scale * b_scale)
    return [result if bias is None else result + bias]


def qgemm(node: Node, inputs: list[Any]) -> list[Any]:
    """``alpha * a_scale * b_scale * (A @ B + C)``, requantized where y_scale is given."""
    a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero = [*inputs, None, None, None][:9]
    left, right = centred(a, a_zero, axis=None), centred(b, None, axis=None)
    right = right.T if attribute(node, "transB") else right
    total = (left.T if attribute(node, "transA") else left) @ (right - b_zero.astype(np.float64))
    total = total if c is None else total + c
    scale = a_scale * b_scale * np.float32(attribute(node, "alpha"))
    if y_zero is None:
        return [total.astype(np.float32) * scale]
    return [requantize(total, scale / y_scale, y_zero, y_zero.dtype)]


def matmul_nbits(node: Node, inputs: list[Any]) -> list[Any]:
    """``A @ W^T + bias`` with W (N, K) of a few bits in blocks along K."""
    a, packed, scales, zeros, _groups, bias = [*inputs, None, None, None][:6]
    bits, size, inner = (int(attribute(node, name)) for name in ("bits", "block_size", "K"))
    rows, blocks = int(attribute(node, "N")), -(-inner // size)
    codes = unpack_fields(packed.reshape(rows, -1), bits).reshape(rows, blocks, size)
    middle: Array = np.full((rows, blocks), float(1 << (bits - 1)), np.float32)
    if zeros is not None and zeros.dtype == np.uint8:
        middle = unpack_fields(zeros.reshape(rows, -1), bits)[:, :blocks]
    elif zeros is not None:
        middle = zeros.reshape(rows, blocks).astype(np.float32)
    scale = scales.reshape(rows, blocks, 1).astype(np.float32)
    weights = ((codes - middle[..., None]) * scale).reshape(rows, -1)[:, :inner]
    result = a.astype(np.float32) @ weights.T
    return [(result if bias is None else result + bias).astype(a.dtype)]


def unpack_fields(packed: Array, bits: int) -> Array:
    """Fields of ``bits`` bits as float32, the first of a byte in its lowest bits."""
    shifts = np.arange(0, 8, bits, dtype=np.uint8)
    fields: Array = packed[..., None] >> shifts & np.uint8((1 << bits) - 1)
    return fields.reshape(*packed.shape[:-1], -1).astype(np.float32)


# ---- fused ---------------------------------------------------------------------------------------


def fused_conv(node: Node, inputs: list[Any]) -> list[Any]:
    """``activation(Conv(x, w) + bias + z)``."""
    x, w, bias, z = [*inputs, None, None][:4]
    (out,) = conv(node, [x, w, bias])
    return [_activated(node, out if z is None else out + z)]


def fused_gemm(node: Node, inputs: list[Any]) -> list[Any]:
    """``activation(Gemm(a, b, c))``."""
    return [_activated(node, gemm(node, inputs)[0])]


def _activated(node: Node, x: Array) -> Array:
    name = attribute(node, "activation") or ""
    given = activation_parameters(partial(attribute, node))
    functions: dict[str, Any] = {
        "": lambda: x,
        "Sigmoid": lambda: sigmoid(node, [x])[0],
        "Relu": lambda: np.maximum(x, 0),
        "Tanh": lambda: np.tanh(x),
        "LeakyRelu": lambda: np.where(x >= 0, x, x * (given[0] if given else 0.01)),
        "Clip": lambda: np.clip(x, given[0], given[1]),
        "HardSigmoid": lambda: np.clip(x * given[0] + given[1], 0, 1),
    }
    if name not in functions:
        raise OperandError(f"unknown activation {name!r}")
    return np.asarray(functions[name](), x.dtype)


# ---- element by element --------------------------------------------------------------------------


def _real(x: Array, scale: Array, zero: Array | None) -> Array:
    """The numbers that quantized integers stand for, in float32."""
    return centred(x, zero, axis=None).astype(np.float32) * scale


def quotient_of_scales(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """``above / below`` in float32, zero below the normal numbers."""
    with np.errstate(all="ignore"):
        quotient = np.asarray(above / below, np.float32)
    return np.where(np.abs(quotient) < np.finfo(np.float32).tiny, np.float32(0), quotient)


def qlinear_add(_node: Node, inputs: list[Any]) -> list[Any]:
    """The sum of the operands, each in steps of the result."""
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = [*inputs, None][:8]
    left = _real(a, quotient_of_scales(a_scale, scale), a_zero)
    right = _real(b, quotient_of_scales(b_scale, scale), b_zero)
    return [_codes(left + right, zero, a.dtype.name)]


def qlinear_mul(_node: Node, inputs: list[Any]) -> list[Any]:
    """The product of the centred operands, rescaled."""
    a, a_scale, a_zero, b, b_scale, b_zero, scale, zero = [*inputs, None][:8]
    total = centred(a, a_zero, axis=None) * centred(b, b_zero, axis=None)
    return [_codes(total.astype(np.float32) * (a_scale * b_scale / scale), zero, a.dtype.name)]


def qlinear_sigmoid(node: Node, inputs: list[Any]) -> list[Any]:
    """The sigmoid of the dequantized input, quantized."""
    x, x_scale, x_zero, scale, zero = [*inputs, None][:5]
    return [_codes(sigmoid(node, [_real(x, x_scale, x_zero)])[0] / scale, zero, x.dtype.name)]


def qlinear_leaky_relu(node: Node, inputs: list[Any]) -> list[Any]:
    """The leaky ReLU of the dequantized input, quantized."""
    x, x_scale, x_zero, scale, zero = [*inputs, None][:5]
    real = _real(x, x_scale, x_zero)
    bent = np.where(real < 0, real * np.float32(attribute(node, "alpha")), real)
    return [_codes(bent / scale, zero, x.dtype.name)]


def qlinear_softmax(node: Node, inputs: list[Any]) -> list[Any]:
    """The softmax of the dequantized input, quantized."""
    x, x_scale, x_zero, scale, zero = inputs
    first = normalize_axis(attribute(node, "axis"), x.ndim)
    axes = (first,) if attribute(node, "opset") >= 13 else tuple(range(first, x.ndim))
    real = _real(x, x_scale, x_zero)
    powers: Array = np.exp(real - real.max(axis=axes, keepdims=True))
    share = powers / powers.sum(axis=axes, keepdims=True)
    return [_codes(share / scale, zero, x.dtype.name)]


def qlinear_concat(node: Node, inputs: list[Any]) -> list[Any]:
    """Tensors with scales of their own, concatenated and quantized by one scale."""
    scale, zero, *rest = inputs
    parts = [
        _codes(_real(rest[i], rest[i + 1], rest[i + 2]) / scale, zero)
        for i in range(0, len(rest), 3)
    ]
    return [np.concatenate(parts, axis=attribute(node, "axis"))]


# ---- pools ---------------------------------------------------------------------------------------


def qlinear_average_pool(node: Node, inputs: list[Any]) -> list[Any]:
    """The average pool of the dequantized input, quantized."""
    x, x_scale, x_zero, scale, zero = [*inputs, None][:5]
    last = attribute(node, "channels_last")
    real = _real(x, x_scale, x_zero)
    real = np.moveaxis(real, -1, 1) if last else real
    pooled = average_pool(node, [real])[0]
    pooled = np.moveaxis(pooled, 1, -1) if last else pooled
    return [_codes(pooled / scale, zero, x.dtype.name)]


def qlinear_global_average_pool(node: Node, inputs: list[Any]) -> list[Any]:
    """The exact mean over all spatial dims, requantized."""
    x, x_scale, x_zero, scale, zero = inputs
    axes = tuple(range(1, x.ndim - 1) if attribute(node, "channels_last") else range(2, x.ndim))
    total = centred(x, x_zero, axis=None).sum(axis=axes, keepdims=True)
    count = np.float32(np.prod([x.shape[a] for a in axes]))
    return [requantize(total, x_scale / (scale * count), zero, x.dtype)]
