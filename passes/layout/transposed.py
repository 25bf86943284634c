"""Transposed convolutions whose windows do not overlap: pointwise convolutions and a movement."""

from __future__ import annotations

import numpy as np

from ...ir.dims import Dim
from ...ir.graph import Node, Value
from ...ir.registry import attribute
from ...ir.windows import Window
from .conv import Work, convolve
from .planner import Planner
from .weights import find_weights


def transposed(p: Planner, node: Node) -> None:
    """``ConvTranspose`` of an image with strides as long as the kernel and no padding.

    ``y[m, h*kh + i, w*kw + j] = sum_c x[c, h, w] * weight[c, m, i, j]``: every position (i, j) of
    the window is a pointwise convolution of its own. All of them are computed as one, with kh*kw
    times the filters, whose results are then moved to their places.
    """
    x, w, *rest = p.graph.inputs_of(node)
    bias = rest[0] if rest else None
    if x is None or w is None or x.dtype != "float32" or x.rank != 4:
        return p.keep(node, "packed kernels take images of float32")
    weights = find_weights(p.graph, w)
    if weights is None or (bias is not None and bias.constant is None):
        return p.keep(node, "its weights or its bias are not constant")
    kernels = (weights.array * weights.scale).astype(np.float32)
    if not _apart(node, kernels.shape[2:]):
        return p.keep(node, "its windows overlap, leave gaps, are cut off or in groups")
    channels, filters, *kernel = kernels.shape
    if x.shape[1] != channels:
        return p.keep(node, "its channels are open")
    # Fewer filters than a block are unpacked, rather than padded to one for each position.
    padded = -(-filters // p.block) * p.block if filters >= p.block else filters
    weight = np.zeros((*kernel, padded, channels), np.float32)
    weight[:, :, :filters] = kernels.transpose(2, 3, 1, 0)
    weight = weight.reshape(-1, channels, 1, 1)
    start = None
    if bias is not None and bias.constant is not None:
        row = np.zeros(padded, np.float32)
        row[:filters] = bias.constant
        start = np.tile(row, int(np.prod(kernel)))
    window = Window((1, 1), (1, 1), (1, 1), (0, 0), (0, 0))
    work = Work(node, x, weight, start, (*weights.key, "transposed"), 1, window, x.shape[2:])
    result = convolve(p, work)
    if result is None:
        return
    if padded == filters and filters < p.block:
        plain = p.add("UnpackChannels", [result], {"channels": len(weight)}, like=node)
        p.replace(node, _placed(p, node, plain, x, kernel, filters), "transposed")
        return
    spread = p.add("DepthToSpaceBlocked", [result], {"window": tuple(kernel)}, like=node)
    p.convert(node, spread, "transposed")


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
