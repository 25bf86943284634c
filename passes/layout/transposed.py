"""Transposed convolutions whose windows do not overlap: pointwise convolutions and a movement."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from ...ir.dims import Dim
from ...ir.graph import Node, Value
from ...ir.registry import attribute
from ...ir.windows import Window
from ..queries import splat
from .conv import Work, convolve, filter_scale, scaled
from .planner import Planner
from .quantized import dot_objection
from .weights import Weights, find_weights


def transposed(p: Planner, node: Node) -> None:
    """``ConvTranspose`` of an image with strides as long as the kernel and no padding.

    ``y[m, h*kh + i, w*kw + j] = sum_c x[c, h, w] * weight[c, m, i, j]``: every position (i, j) of
    the window is a pointwise convolution of its own. All of them are computed as one, with kh*kw
    times the filters, whose results are then moved to their places. Bytes that are dequantised on
    both sides are summed as integers.
    """
    x, w, *rest = p.graph.inputs_of(node)
    bias = rest[0] if rest else None
    if x is None or w is None or x.dtype != "float32" or x.rank != 4:
        return p.keep(node, "packed kernels take images of float32")
    weights = find_weights(p.graph, w)
    if weights is None or (bias is not None and bias.constant is None):
        return p.keep(node, "its weights or its bias are not constant")
    channels, filters, *kernel = weights.array.shape
    if not _apart(node, tuple(kernel)):
        return p.keep(node, "its windows overlap, leave gaps, are cut off or in groups")
    if x.shape[1] != channels:
        return p.keep(node, "its channels are open")
    # Fewer filters than a block are unpacked, rather than padded to one for each position.
    padded = -(-filters // p.block) * p.block if filters >= p.block else filters
    layer = _Layer(node, x, weights, None if bias is None else bias.constant, padded)
    result = _integer(p, layer) or _float(p, layer)
    if result is None:
        return
    if padded == filters and filters < p.block:
        count = padded * int(np.prod(kernel))
        plain = p.add("UnpackChannels", [result], {"channels": count}, like=node)
        p.replace(node, _placed(p, node, plain, x, kernel, filters), "transposed")
        return
    spread = p.add("DepthToSpaceBlocked", [result], {"window": tuple(kernel)}, like=node)
    p.convert(node, spread, "transposed")


@dataclass(frozen=True)
class _Layer:
    """A transposed convolution; ``padded`` is the number of filters for each position."""

    node: Node
    x: Value
    weights: Weights
    bias: np.ndarray | None
    padded: int

    def pointwise(self, kernels: np.ndarray) -> np.ndarray:
        """Kernels [C, M, *K] as those of a pointwise convolution: [K * padded, C, 1, 1]."""
        channels, filters, *kernel = kernels.shape
        weight = np.zeros((*kernel, self.padded, channels), kernels.dtype)
        weight[:, :, :filters] = kernels.transpose(2, 3, 1, 0)
        return weight.reshape(-1, channels, 1, 1)

    def by_position(self, values: np.ndarray) -> np.ndarray:
        """One value for each filter, or for all, repeated for each position: [K * padded]."""
        filters, *kernel = self.weights.array.shape[1:]
        row = np.zeros(self.padded, np.float32)
        row[:filters] = values
        return np.tile(row, int(np.prod(kernel)))

    def work(self, x: Value, kernels: np.ndarray, start: np.ndarray | None, kind: str) -> Work:
        window = Window((1, 1), (1, 1), (1, 1), (0, 0), (0, 0))
        key = (*self.weights.key, "transposed", kind)
        return Work(self.node, x, kernels, start, key, 1, window, self.x.shape[2:])


def _float(p: Planner, layer: _Layer) -> Value | None:
    """The pointwise convolution of floats, in blocks."""
    kernels = (layer.weights.array * layer.weights.scale).astype(np.float32)
    start = None if layer.bias is None else layer.by_position(layer.bias)
    return convolve(p, layer.work(layer.x, layer.pointwise(kernels), start, "floats"))


def _integer(p: Planner, layer: _Layer) -> Value | None:
    """The same by a dot product of bytes, scaled; None where the operands are no such bytes."""
    data, factor, zero = _bytes_of(p, layer.x) or (None, None, 0)
    scale = filter_scale(layer.weights, axis=1)
    if data is None or factor is None or scale is None or layer.weights.array.dtype != np.int8:
        return None
    kernels = layer.pointwise(layer.weights.array)
    start = -zero * kernels.reshape(len(kernels), -1).sum(axis=1, dtype=np.int64)
    work = layer.work(data, kernels, start.astype(np.int32), "bytes")
    total = convolve(p, replace(work, depth=p.layouts.dot_depth, border=zero))
    if total is None:
        return None
    exact = p.add("Cast", [total], {"to": 1}, domain="", like=layer.node)
    row = None if layer.bias is None else layer.by_position(layer.bias)
    return scaled(p, work, exact, layer.by_position(scale * factor), row)


def _bytes_of(p: Planner, x: Value) -> tuple[Value, np.ndarray, int] | None:
    """The bytes that ``x`` is dequantised from, their scale and their zero point, if the target's
    dot products take them.
    """
    if x.node.key != "DequantizeLinear":
        return None
    data, scale, zero = [*p.graph.inputs_of(x.node), None][:3]
    if data is None or scale is None or dot_objection(p, data) is not None:
        return None
    start, step = 0 if zero is None else splat(zero), scale.constant
    if start is None or step is None or step.size != 1 or scale.dtype != "float32":
        return None
    return data, step.reshape(()), int(start)


def _apart(node: Node, kernel: tuple[int, ...]) -> bool:
    """Do the windows tile the result, without overlap, gaps or a cut border?"""
    given = {k: attribute(node, k) for k in ("strides", "dilations", "pads", "output_padding")}
    return (
        int(attribute(node, "group")) == 1
        and tuple(given["strides"] or (1, 1)) == kernel
        and all(d == 1 for d in given["dilations"] or ())
        and not any(given["pads"] or ())
        and not any(given["output_padding"] or ())
        and not attribute(node, "output_shape")
        and attribute(node, "auto_pad") in (None, "", "NOTSET", "VALID")
    )


def _placed(
    p: Planner, node: Node, x: Value, source: Value, kernel: list[int], filters: int
) -> Value:
    """``[N, kh*kw*M, H, W]`` as ``[N, M, H*kh, W*kw]``."""
    n, _, height, width = source.shape
    kh, kw = kernel
    split: tuple[Dim, ...] = (n, kh, kw, filters, height, width)
    apart = p.add("Reshape", [x], {"shape": split}, like=node)
    moved = p.add("Transpose", [apart], {"perm": (0, 3, 4, 1, 5, 2)}, domain="", like=node)
    shape = (n, filters, height * kh, width * kw)
    return p.add("Reshape", [moved], {"shape": shape}, like=node)
