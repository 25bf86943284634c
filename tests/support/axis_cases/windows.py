"""Convolutions and pools, plain and blocked, and ops on images."""

from __future__ import annotations

from typing import Any

import numpy as np

from graphkiln.ir.packing import pack_channels, pack_conv_weight, pack_depthwise_weight

from .base import MS, Array, Case, Draw, case, i64


def _window(d: Draw, kernel: list[int]) -> dict[str, Any]:
    """Attributes of a convolution or pool; often a plain 1x1."""
    if all(k == 1 for k in kernel) and d.flag():
        return {"strides": tuple(d.dim(1, 2) for _ in kernel)}
    return {
        "strides": tuple(d.dim(1, 2) for _ in kernel),
        "dilations": tuple(d.dim(1, 2) for _ in kernel),
        "pads": tuple(d.dim(0, min(k - 1, 1)) for k in kernel * 2),
    }


def _channels(d: Draw) -> tuple[int, int, int]:
    return d.dim(1, 3), d.dim(1, 3), d.dim(1, 3)


def _conv(d: Draw) -> tuple[Array, Array, int, dict[str, Any]]:
    g, c, m = _channels(d)
    kernel = [d.dim(1, 2) for _ in range(d.dim(1, 2))]
    x = d.floats(d.dim(1, 2), g * c, *(d.dim(3, 5) for _ in kernel))
    return x, d.floats(g * m, c, *kernel), g, {**_window(d, kernel), "group": g}


@case("Conv", MS + "FusedConv")
def conv(d: Draw, key: str) -> Case:
    x, w, _, attrs = _conv(d)
    if key != "Conv":
        attrs["activation"] = d.pick("", "Relu")
    return Case(key, [x, w, *([d.floats(len(w))] if d.flag() else [])], attrs)


def _bytes(d: Draw, x: Array) -> Array:
    return d.bytes(*x.shape)


@case("ConvInteger")
def conv_integer(d: Draw, key: str) -> Case:
    x, w, _, attrs = _conv(d)
    zero = d.pick(np.uint8(5), d.bytes(len(w)))
    return Case(key, [_bytes(d, x), _bytes(d, w), np.uint8(9), np.asarray(zero)], attrs)


@case("QLinearConv")
def qlinear_conv(d: Draw, key: str) -> Case:
    x, w, _, attrs = _conv(d)
    m = len(w)
    weights = [d.positive(m), d.bytes(m)] if d.flag() else [np.float32(0.1), np.uint8(4)]
    bias = d.ints(-99, 99, m, dtype="int32")
    data = [_bytes(d, x), np.float32(0.1), np.uint8(9), _bytes(d, w), *weights]
    return Case(key, [*data, np.float32(40), np.uint8(100), bias], attrs)


@case("ConvTranspose")
def conv_transpose(d: Draw, key: str) -> Case:
    g, c, m = _channels(d)
    kernel = [d.dim(1, 3) for _ in range(d.dim(1, 2))]
    x = d.floats(d.dim(1, 2), g * c, *(d.dim(2, 4) for _ in kernel))
    attrs = {
        "group": g, "strides": tuple(d.dim(1, 3) for _ in kernel),
        "dilations": tuple(d.dim(1, 2) for _ in kernel),
        "pads": tuple(d.dim(0, min(k - 1, 1)) for k in kernel * 2),
    }  # fmt: skip
    return Case(key, [x, d.floats(g * c, m, *kernel), d.floats(g * m)], attrs)


@case("DeformConv")
def deform_conv(d: Draw, key: str) -> Case:
    n, m, c = d.dim(1, 2), d.dim(), d.dim()
    groups = d.pick(1, c)
    x, w = d.floats(n, c, 3, 3), d.floats(m, c, 2, 2)
    inputs = [x, w, d.floats(n, groups * 8, 2, 2), d.floats(m), d.floats(n, groups * 4, 2, 2)]
    return Case(key, inputs, {"offset_group": groups})


@case("CausalConvWithState")
def causal_conv(d: Draw, key: str) -> Case:
    n, c, length, taps = d.dim(), d.dim(), d.dim(1, 5), d.dim(2, 3)
    past = d.floats(n, c, taps - 1)
    return Case(key, [d.floats(n, c, length), d.floats(c, 1, taps), d.floats(c), past], outputs=2)


# ---- pools ---------------------------------------------------------------------------------------


@case("MaxPool", "AveragePool", "LpPool")
def pool(d: Draw, key: str) -> Case:
    kernel = [d.dim(1, 2) for _ in range(d.dim(1, 2))]
    attrs = {**_window(d, kernel), "kernel_shape": tuple(kernel), "ceil_mode": d.dim(0, 1)}
    x = d.floats(d.dim(), d.dim(), *(d.dim(3, 5) for _ in kernel))
    return Case(key, [x], attrs, d.dim(1, 2) if key == "MaxPool" else 1)


@case(MS + "QLinearAveragePool", MS + "QLinearGlobalAveragePool")
def quantized_pool(d: Draw, key: str) -> Case:
    parameters = [np.float32(0.1), np.uint8(9), np.float32(0.2), np.uint8(4)]
    attrs: dict[str, Any] = {"channels_last": d.dim(0, 1)}
    if "Global" not in key:
        attrs["kernel_shape"] = (2, 1)
    return Case(key, [d.bytes(d.dim(), d.dim(2), d.dim(2), d.dim(2)), *parameters], attrs)


@case("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool")
def global_pool(d: Draw, key: str) -> Case:
    return Case(key, [d.floats(*d.shape(3, 4))])


@case("kiln.PoolBlocked")
def blocked_pool(d: Draw, key: str) -> Case:
    kernel = [d.dim(1, 2), d.dim(1, 2)]
    attrs = {**_window(d, kernel), "kernel_shape": tuple(kernel), "mode": d.pick("max", "average")}
    return Case(key, [d.floats(d.dim(), d.dim(), d.dim(3, 5), d.dim(3, 5), 2)], attrs)


# ---- blocked convolutions ------------------------------------------------------------------------


@case("kiln.ConvBlocked")
def blocked_conv(d: Draw, key: str) -> Case:
    block, g = 2, d.dim(1, 2)
    c = d.dim(1, 2) * block - (d.dim(0, 1) if g == 1 else 0)
    tile = block * d.dim(1, 2)
    m = d.dim(1, 2) * tile - (d.dim(0, 1) if g == 1 else 0)
    kernel = [d.dim(1, 2), d.dim(1, 2)]
    x = pack_channels(d.floats(d.dim(1, 2), g * c, d.dim(3, 4), d.dim(3, 4)), block)
    w = pack_conv_weight(d.floats(g * m, c, *kernel), g, block, tile)
    attrs = {
        **_window(d, kernel), "kernel_shape": tuple(kernel), "group": g, "block": block,
        "in_channels": g * c, "out_channels": g * m,
    }  # fmt: skip
    bias = d.floats(-(-g * m // block), 1, 1, block)
    return Case(key, [x, w, bias], attrs)


@case("kiln.DepthwiseBlocked")
def blocked_depthwise(d: Draw, key: str) -> Case:
    block = 2
    c = d.dim(1, 3) * block - d.dim(0, 1)
    kernel = [d.dim(1, 2), d.dim(1, 2)]
    x = pack_channels(d.floats(d.dim(1, 2), c, d.dim(3, 4), d.dim(3, 4)), block)
    w = pack_depthwise_weight(d.floats(c, 1, *kernel), block)
    attrs = {
        **_window(d, kernel), "kernel_shape": tuple(kernel), "block": block, "in_channels": c,
        "out_channels": c,
    }  # fmt: skip
    return Case(key, [x, w, d.floats(-(-c // block), 1, 1, block)], attrs)


# ---- images --------------------------------------------------------------------------------------


@case("Resize")
def resize(d: Draw, key: str) -> Case:
    x = d.floats(d.dim(), d.dim(), d.dim(2, 4), d.dim(2, 4))
    scales = np.float32([1, 1, d.pick(1, 2, 3, 1.5), d.pick(1, 2, 0.5)])
    way = d.pick(
        {"mode": "nearest"},
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"},
        {"mode": "nearest", "coordinate_transformation_mode": "asymmetric",
         "nearest_mode": "floor"},
        {"mode": "linear"},
    )  # fmt: skip
    return Case(key, [x, None, scales], way, constants=(2,))


@case("GridSample", MS + "GridSample")
def grid_sample(d: Draw, key: str) -> Case:
    n = d.dim()
    return Case(key, [d.floats(n, d.dim(), 3, 3), d.floats(n, d.dim(), d.dim(), 2) / 2])


@case("AffineGrid")
def affine_grid(d: Draw, key: str) -> Case:
    n = d.dim()
    size = i64(n, 1, 2, 3)
    return Case(key, [d.floats(n, 2, 3), size], constants=(1,), resizable=False)


@case("RoiAlign")
def roi_align(d: Draw, key: str) -> Case:
    n, regions = d.dim(), d.dim()
    attrs = {"output_height": 2, "output_width": 2}
    rois = np.sort(d.positive(regions, 4), axis=1)
    return Case(key, [d.floats(n, d.dim(), 4, 4), rois, d.ints(0, n, regions)], attrs)
