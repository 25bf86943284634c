"""Convolutions as matrix products: Conv, ConvTranspose, ConvInteger and QLinearConv."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...errors import OperandError
from ..graph import Node
from ..registry import attribute
from ..windows import Window, transpose_window
from .arithmetic import centred, compute_dtype, requantize
from .windows import Frame, at_end, conv_frame, ints

_COLUMN_BYTES = 1 << 27
"""Bytes of a block of columns, about; the columns of an image are made block by block."""


def conv(node: Node, inputs: list[Any]) -> list[Any]:
    """``Conv``: x [N,C,*spatial], w [M,C/group,*kernel], optional bias [M]."""
    x, w, *rest = inputs
    work = compute_dtype(x.dtype)
    out = convolve(node, x.astype(work, copy=False), w.astype(work, copy=False))
    if rest and rest[0] is not None:
        out += rest[0].astype(work).reshape(-1, *(1,) * (x.ndim - 2))
    return [out.astype(x.dtype, copy=False)]


def conv_integer(node: Node, inputs: list[Any]) -> list[Any]:
    """``ConvInteger``: exact, since float64 holds every sum of products of bytes."""
    x, w, x_zero, w_zero = [*inputs, None, None][:4]
    out = convolve(node, centred(x, x_zero, axis=None), centred(w, w_zero, axis=0))
    return [out.astype(np.int32)]


def qlinear_conv(node: Node, inputs: list[Any]) -> list[Any]:
    """``QLinearConv``: integer convolution and bias, then scaled and rounded to y's type."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, *rest = inputs
    sums = convolve(node, centred(x, x_zero, axis=None), centred(w, w_zero, axis=0))
    per_channel = (-1, *(1,) * (x.ndim - 2))
    if rest and rest[0] is not None:
        sums += rest[0].astype(np.float64).reshape(per_channel)
    scale = x_scale * w_scale / y_scale
    if np.size(scale) > 1:
        scale = scale.reshape(per_channel)
    return [requantize(sums, scale, y_zero, x.dtype)]


def convolve(node: Node, x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """The convolution itself, in the dtype of ``x`` and ``w``; result [N,M,*output]."""
    group = int(attribute(node, "group") or 1)
    window = conv_frame(node, x.shape[2:], w.shape[2:])
    padded = window.pad(x, 0)
    if x.shape[1] != group * w.shape[1] or w.shape[0] % group:
        raise OperandError(
            f"{x.shape[1]} channels do not fit weights {list(w.shape)}, group {group}"
        )
    if w.shape[1] == 1 and group > 1:
        return _depthwise(padded, w, window, group)
    out = np.empty((x.shape[0], w.shape[0], *window.output), x.dtype)
    grouped = padded.reshape(x.shape[0], group, x.shape[1] // group, *padded.shape[2:])
    weights = w.reshape(group, w.shape[0] // group, -1)
    results = out.reshape(x.shape[0], group, w.shape[0] // group, *window.output)
    for n in range(x.shape[0]):
        for g in range(group):
            _multiply(grouped[n, g], weights[g], window, results[n, g])
    return out


def _multiply(x: np.ndarray, w: np.ndarray, window: Frame, out: np.ndarray) -> None:
    """``out[m,*output] = w[m, c*kernel] @ columns``; x is [c,*padded]."""
    rows = window.output[0]
    row_bytes = w.shape[1] * x.itemsize * int(np.prod(window.output[1:]))
    step = max(1, min(rows, _COLUMN_BYTES // max(1, row_bytes)))
    for start in range(0, rows, step):
        stop = min(rows, start + step)
        columns = _columns(x, window, start, stop)
        out[:, start:stop] = (w @ columns).reshape(len(w), stop - start, *window.output[1:])


def _columns(x: np.ndarray, window: Frame, start: int, stop: int) -> np.ndarray:
    """[c*kernel, positions] for output rows ``start`` to ``stop``."""
    spans = tuple((k - 1) * d + 1 for k, d in zip(window.kernel, window.dilations, strict=True))
    axes = tuple(range(1, x.ndim))
    seen = np.lib.stride_tricks.sliding_window_view(x, spans, axis=axes)
    starts = [start, *[0] * (len(axes) - 1)]
    stops = [stop, *window.output[1:]]
    outer = [
        slice(a * s, (b - 1) * s + 1, s)
        for a, b, s in zip(starts, stops, window.strides, strict=True)
    ]
    inner = [slice(None, None, d) for d in window.dilations]
    view = at_end(seen, [*outer, *inner])
    rank = len(axes)
    order = (0, *range(rank + 1, 2 * rank + 1), *axes)
    return view.transpose(order).reshape(x.shape[0] * int(np.prod(window.kernel)), -1)


def _depthwise(padded: np.ndarray, w: np.ndarray, window: Frame, group: int) -> np.ndarray:
    batch, multiple = padded.shape[0], w.shape[0] // group
    out = np.zeros((batch, group, multiple, *window.output), padded.dtype)
    factors = w.reshape(group, multiple, *window.kernel)
    for offset in window.offsets():
        factor = at_end(factors, offset).reshape(group, multiple, *(1,) * len(offset))
        out += window.view(padded, offset)[:, :, None] * factor
    return out.reshape(batch, w.shape[0], *window.output)


# ---- transposed ----------------------------------------------------------------------------------


def conv_transpose(node: Node, inputs: list[Any]) -> list[Any]:
    """``ConvTranspose``: x [N,C,*spatial], w [C,M/group,*kernel], optional bias [M]."""
    x, w, *rest = inputs
    work = compute_dtype(x.dtype)
    group = int(attribute(node, "group") or 1)
    window, output = transpose_window(node, x.shape[2:], w.shape[2:])
    sizes, begin = ints(output), ints(window.begin)
    full = tuple(
        max((n - 1) * s + int(window.reach(i)), begin[i] + sizes[i])
        for i, (n, s) in enumerate(zip(x.shape[2:], window.strides, strict=True))
    )
    out = np.zeros((x.shape[0], group, w.shape[1], *full), work)
    _scatter(window, x.astype(work, copy=False), w.astype(work, copy=False), out)
    crop = [slice(b, b + n) for b, n in zip(begin, sizes, strict=True)]
    result = at_end(out.reshape(x.shape[0], group * w.shape[1], *full), crop)
    if rest and rest[0] is not None:
        result = result + rest[0].astype(work).reshape(-1, *(1,) * (x.ndim - 2))
    return [np.ascontiguousarray(result.astype(x.dtype, copy=False))]


def _scatter(window: Window, x: np.ndarray, w: np.ndarray, out: np.ndarray) -> None:
    """Add every input element times the kernel into ``out`` [N,group,M/group,*full]."""
    batch, group, channels = out.shape[:3]
    steps = list(zip(window.dilations, x.shape[2:], window.strides, strict=True))
    kernel = w.shape[2:]
    columns = w.reshape(group, w.shape[0] // group, -1).transpose(0, 2, 1)
    pixels = int(np.prod(x.shape[2:]))
    products = columns @ x.reshape(batch, group, w.shape[0] // group, pixels)
    products = products.reshape(batch, group, channels, *kernel, *x.shape[2:])
    for offset in np.ndindex(*kernel):
        place = [
            slice(o * d, o * d + (n - 1) * s + 1, s)
            for o, (d, n, s) in zip(offset, steps, strict=True)
        ]
        seen = at_end(out, place)
        seen += products[(slice(None),) * 3 + offset]
