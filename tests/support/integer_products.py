"""Layers of 8-bit integers by their formulas: exact sums of integers, in NumPy.

onnxruntime is no reference for these: on CPUs without VNNI it adds pairs of products in 16 bits,
which saturates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

Array = np.ndarray


def codes(value: Array, scale: Array, zero: Array) -> Array:
    """QuantizeLinear-10: ``saturate(round(value / scale) + zero)`` in the type of ``zero``."""
    limits = np.iinfo(zero.dtype)
    moved = np.rint(value / scale) + zero.astype(np.float64)
    return np.clip(moved, limits.min, limits.max).astype(zero.dtype)


def dynamic_codes(x: Array) -> tuple[Array, Array, Array]:
    """DynamicQuantizeLinear-11: codes, scale and zero point of a float32 tensor."""
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    scale = np.float32(np.float32(high - low) / np.float32(255)) if high > low else np.float32(1)
    zero = np.uint8(np.clip(np.rint(np.float32(-low) / scale), 0, 255))
    return codes(x / scale, np.float32(1), np.array(zero)), scale, np.array(zero)


def centred(codes_: Array, zero: Array | None) -> Array:
    """``codes - zero`` as int64."""
    return codes_.astype(np.int64) - (0 if zero is None else zero.astype(np.int64))


def qgemm(
    a: Array, a_scale: Array, a_zero: Array, b: Array, b_scale: Array, b_zero: Array, bias: Array,
    transposed: bool, alpha: float, result: Sequence[Array] = (),
) -> Array:  # fmt: skip
    """com.microsoft.QGemm; ``result`` are the scale and the zero point of a quantized one."""
    left, right = centred(a, a_zero), b.T if transposed else b
    scale = a_scale.astype(np.float64) * b_scale
    total = (left.T if transposed else left) @ centred(right, b_zero)
    value = alpha * (total + bias) * scale  # the bias has the scale of the product
    return codes(value, *result) if result else value.astype(np.float32)


def matmul_to_float(
    a: Array, b: Array, a_scale: Array, b_scale: Array, a_zero: Array, b_zero: Array,
    bias: Array | None = None,
) -> Array:  # fmt: skip
    """com.microsoft.MatMulIntegerToFloat."""
    value = (centred(a, a_zero) @ centred(b, b_zero)) * (a_scale.astype(np.float64) * b_scale)
    return (value + (0 if bias is None else bias)).astype(np.float32)


def dynamic_matmul(
    x: Array, b: Array, b_scale: Array, b_zero: Array, bias: Array | None = None
) -> Array:
    """com.microsoft.DynamicQuantizeMatMul."""
    a, scale, zero = dynamic_codes(x)
    return matmul_to_float(a, b, scale, b_scale, zero, b_zero, bias)


def qlinear_conv(
    x: Array, x_scale: Array, x_zero: Array, w: Array, w_scale: Array, w_zero: Array,
    y_scale: Array, y_zero: Array, bias: Array, *, pads: Sequence[int], strides: Sequence[int],
    group: int,
) -> Array:  # fmt: skip
    """QLinearConv-10 of images [N, C, H, W]."""
    count = len(w)
    per_filter = [np.broadcast_to(v, (count,)) for v in (w_scale, w_zero)]
    top, left, bottom, right = pads
    image = np.pad(centred(x, x_zero), ((0, 0), (0, 0), (top, bottom), (left, right)))
    weights = w.astype(np.int64) - per_filter[1].astype(np.int64)[:, None, None, None]
    windows = np.lib.stride_tricks.sliding_window_view(image, w.shape[2:], axis=(2, 3))
    windows = windows[:, :, :: strides[0], :: strides[1]]
    channels, filters = w.shape[1], count // group
    parts = [
        np.einsum(
            "nchwij,fcij->nfhw",
            windows[:, g * channels : (g + 1) * channels], weights[g * filters : (g + 1) * filters],
        )
        for g in range(group)
    ]  # fmt: skip
    total = np.concatenate(parts, axis=1) + bias.astype(np.int64)[None, :, None, None]
    scale = (np.float64(x_scale) * per_filter[0] / y_scale)[None, :, None, None]
    return codes(total * scale, np.float64(1), np.asarray(y_zero))


def dynamic_lstm(
    x: Array, w: Array, r: Array, bias: Array | None, lengths: Array | None, h: Array | None,
    c: Array | None, peepholes: Array | None, w_scale: Array, w_zero: Array, r_scale: Array,
    r_zero: Array, direction: str,
) -> list[Array]:  # fmt: skip
    """com.microsoft.DynamicQuantizeLSTM without clipping: Y, Y_h and Y_c.

    X is quantized as a whole, the hidden state in each step; W [D, I, 4H] and R [D, H, 4H].
    """
    steps, batch, _ = x.shape
    hidden, count = r.shape[1], len(r)
    a, a_scale, a_zero = dynamic_codes(x)
    every = np.zeros((steps, count, batch, hidden), np.float32)
    last = [np.zeros((count, batch, hidden), np.float32) for _ in range(2)]
    ends = np.full(batch, steps) if lengths is None else lengths
    for d in range(count):
        state = [np.zeros((batch, hidden)) if v is None else v[d].astype(float) for v in (h, c)]
        start = _summed_bias(bias, d, hidden)
        inner = matmul_to_float(a, w[d], a_scale, _of(w_scale, d), a_zero, _of(w_zero, d))
        backwards = direction == "reverse" or d == 1
        for step in range(steps):
            codes_, scale, zero = dynamic_codes(state[0].astype(np.float32))
            outer = matmul_to_float(codes_, r[d], scale, _of(r_scale, d), zero, _of(r_zero, d))
            at = np.where(ends > step, ends - 1 - step if backwards else step, 0)
            gates = inner[at, np.arange(batch)] + outer + start
            state = _lstm_step(gates, state, None if peepholes is None else peepholes[d],
                               (ends > step)[:, None])  # fmt: skip
            for n in np.flatnonzero(ends > step):
                every[at[n], d, n] = state[0][n]
        last[0][d], last[1][d] = state
    return [every, *last]


def _of(parameter: Array, direction: int) -> Array:
    return np.asarray(parameter[direction])


def _summed_bias(bias: Array | None, d: int, hidden: int) -> Array:
    if bias is None:
        return np.zeros(4 * hidden)
    return bias[d][: 4 * hidden].astype(float) + bias[d][4 * hidden :]


def _lstm_step(
    gates: Array, state: list[Array], peepholes: Array | None, running: Array
) -> list[Array]:
    h, c = state
    i, o, f, g = np.split(gates, 4, axis=1)
    p_i, p_o, p_f = (0, 0, 0) if peepholes is None else np.split(peepholes.astype(float), 3)
    fresh = _sigmoid(f + p_f * c) * c + _sigmoid(i + p_i * c) * np.tanh(g)
    out = _sigmoid(o + p_o * fresh) * np.tanh(fresh)
    return [np.where(running, out, h), np.where(running, fresh, c)]


def _sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))
